"""What goes into evidence.json: nothing small, nothing that no commit tells, no value of another claim."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from llmfw.core import discovery
from llmfw.core.errors import PluginError, UsageError
from llmfw.core.evidence.document import entry_of, faults, read_evidence
from llmfw.core.evidence.filing import check_place, file_evidence, filed_seeds, merge
from llmfw.core.evidence.git import tree_of
from llmfw.core.evidence.outcome import Outcome
from llmfw.core.evidence.run import run_claims
from llmfw.core.evidence.schedule import counted, make_schedule
from llmfw.core.evidence.stated import read_claims
from tests.core.evidence.toys import CLAIMS, FUNCTIONS, committed, git, write_mine

TWO = FUNCTIONS.replace(
    "CLAIMS = (",
    """CLAIMS = (
    Claim(id="mine.2", statement="It is fast", paper="Table 2", metric="", not_tested="needs a GPU"),""",
).replace('id="mine.1"', 'id="mine.1"')


def stated(site: Path, claims: str = FUNCTIONS):
    write_mine(site, claims)
    discovery.forget()
    sys.modules.pop("toy_mine.reproduce", None)
    return read_claims("mine")


def filed(plugin: Any, size: Any = "small", **more: Any) -> tuple[dict[str, Any], list[str]]:
    """Run the claims, file what they gave, and read it again."""
    schedule = make_schedule(plugin, size, words=["tracking.mlflow=false"], **more)
    file, notes = file_evidence(plugin, run_claims(schedule).evidence, size)
    return json.loads(file.read_text()), notes


def test_a_result_goes_into_the_plugins_folder_with_its_commits_and_its_readme(site):
    plugin = stated(site)
    commit = committed(site)
    found, notes = filed(plugin)
    assert notes == []
    (entry,) = found["claims"]
    assert entry["arms"]["own"]["values"] == {"1": 2.0, "2": 3.0, "3": 4.0}
    assert set(entry["arms"]["own"]["commits"].values()) == {commit}
    assert (entry["verdict"], found["commit"]) == ("reproduced", commit)
    assert found["command"] == "llmfw reproduce mine --size small tracking.mlflow=false"
    assert faults(found) == []
    readme = (plugin.folder / "README.md").read_text()
    assert "| `mine.1` Mine is more" in readme
    assert "own (method) 3 [0.5159, 5.484]" in readme
    assert "1 [1, 1]" in readme
    assert readme.endswith("## Deviations from the paper\nNone.\n")
    # what was generated is no reason to refuse the next run
    assert "evidence.json" in git(site, "status", "--porcelain", "--untracked-files=all")
    assert tree_of(plugin.folder).changed == ()


def test_size_smoke_is_no_evidence(site):
    plugin = stated(site)
    committed(site)
    with pytest.raises(UsageError, match="size smoke") as raised:
        check_place(plugin, "smoke")
    assert raised.value.code == "EVIDENCE-SIZE"


@pytest.mark.parametrize(
    ("file", "code"),
    [("toy_mine/plugin.py", True), ("toy_mine/new.py", True), ("toy_mine/README.md", True),
     ("toy_mine/notes.txt", False), ("toy_mine/evidence.json", False), ("docs/evidence/mine.svg", False)],
)  # fmt: skip
def test_a_tree_that_differs_from_its_commit_is_refused(site, file, code):
    plugin = stated(site)
    (site / "docs/evidence").mkdir(parents=True)
    (site / "docs/evidence/mine.svg").write_text("<svg/>")
    committed(site)
    with (site / file).open("a") as opened:
        opened.write("# changed\n")
    if not code:
        check_place(plugin, "small")
        return
    with pytest.raises(UsageError, match=Path(file).name) as raised:
        check_place(plugin, "small")
    assert raised.value.code == "EVIDENCE-DIRTY"


def test_values_that_came_from_a_dirty_tree_are_refused_later_too(site):
    plugin = stated(site)
    committed(site)
    (plugin.folder / "helper.py").write_text("")
    found = run_claims(make_schedule(plugin, "small", words=["tracking.mlflow=false"]))
    (plugin.folder / "helper.py").unlink()
    with pytest.raises(UsageError, match="arm plain, seed 1 ran while files differed"):
        file_evidence(plugin, found.evidence, "small")
    assert read_evidence(plugin.folder) is None


COMMITTING = (
    FUNCTIONS.replace('run=lambda workspace: {"count": workspace.seed})', "run=commit)")
    + """

def commit(workspace):
    import pathlib
    from tests.core.evidence.toys import committed

    if workspace.seed == 2:
        committed(pathlib.Path(__file__).parents[1])
    return {"count": workspace.seed}
"""
)


def test_values_are_those_of_the_commit_that_the_process_has_read(site):
    """While arm plain of seed 2 runs somebody commits: what runs later is code of nobody knows which."""
    plugin = stated(site, COMMITTING)
    commit = committed(site)
    found = run_claims(make_schedule(plugin, "small", words=["tracking.mlflow=false"]))
    commits = {name: arm["commits"] for name, arm in found.evidence["claims"][0]["arms"].items()}
    unsure = f"{commit}+"
    assert commits["plain"] == {"1": commit, "2": commit, "3": unsure}
    assert commits["own"] == {"1": commit, "2": unsure, "3": unsure}
    with pytest.raises(UsageError, match="arm plain, seed 3 ran while files differed"):
        file_evidence(plugin, found.evidence, "small")


FAILING = (
    FUNCTIONS.replace('run=lambda workspace: {"count": workspace.seed + 1})', "run=own)")
    + """

def own(workspace):
    import pathlib

    return {"count": len(pathlib.Path("now").read_text()) + workspace.seed}
"""
)


@pytest.mark.parametrize("moved", [False, True])
def test_an_arm_that_another_commit_began_begins_anew(site, here, moved):
    """The file ``begun`` stands for a training's checkpoints: other code would go on from them."""
    plugin = stated(site, FAILING)
    commit = committed(site)
    plan = make_schedule(plugin, "small", seeds=(1,), words=["tracking.mlflow=false"])
    with pytest.raises(PluginError, match="arm own, seed 1"):
        run_claims(plan)
    (folder,) = here.glob("runs/*/seed-1/own")
    (folder / "begun").touch()
    (here / "now").write_text("x")
    now = committed(site) if moved else commit
    found = run_claims(plan, resume=True)
    assert (folder / "begun").exists() is not moved
    commits = {name: arm["commits"]["1"] for name, arm in found.evidence["claims"][0]["arms"].items()}
    assert commits == {"plain": commit, "own": now}


def test_a_folder_without_git_is_refused_with_how_to_mend_it(site):
    plugin = stated(site)
    with pytest.raises(UsageError, match="pip install -e .") as raised:
        check_place(plugin, "small")
    assert raised.value.code == "EVIDENCE-GIT"
    (site / ".gitignore").write_text("*\n")  # a virtual environment inside a repository
    git(site, "init", "-q")
    git(site, "commit", "-q", "--allow-empty", "-m", "Begin")
    with pytest.raises(UsageError, match="no commit tells its code"):
        check_place(plugin, "small")


def test_a_git_that_does_not_answer_is_no_clean_tree(site, tmp_path, monkeypatch):
    """On a busy machine git status may be stopped after its 10 s: then nobody knows what changed."""
    plugin = stated(site)
    committed(site)
    (tmp_path / "bin").mkdir()
    deaf = tmp_path / "bin/git"
    deaf.write_text(f'#!/bin/sh\ncase "$*" in *status*) exit 1;; esac\nexec {shutil.which("git")} "$@"\n')
    deaf.chmod(0o755)
    monkeypatch.setenv("PATH", f"{deaf.parent}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(UsageError, match="didn't answer") as raised:
        check_place(plugin, "small")
    assert raised.value.code == "EVIDENCE-GIT"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_read_only_is_refused(site):
    plugin = stated(site)
    committed(site)
    plugin.folder.chmod(0o555)
    try:
        with pytest.raises(UsageError, match="can't be written to"):
            check_place(plugin, "small")
    finally:
        plugin.folder.chmod(0o755)


def test_further_seeds_are_put_beside_the_others_each_with_its_commit(site):
    plugin = stated(site)
    old = committed(site)
    filed(plugin)
    new = committed(site)
    assert filed_seeds(read_evidence(plugin.folder), "small") == {"mine.1": [1, 2, 3]}
    found, notes = filed(plugin, further=2, filed=filed_seeds(read_evidence(plugin.folder), "small"))
    assert notes == []
    (entry,) = found["claims"]
    assert list(entry["arms"]["own"]["values"].items()) == [(str(n), n + 1.0) for n in range(1, 6)]
    assert list(entry["arms"]["own"]["commits"].values()) == [old, old, old, new, new]
    assert list(entry["cost"]["own"]) == ["1", "2", "3", "4", "5"]
    assert entry["differences"]["n"] == 5
    assert faults(found) == []


@pytest.mark.parametrize("words", [(), ("trainer.max_steps=9",)])
def test_seeds_of_other_settings_are_not_put_beside_the_new_ones(site, words):
    """Seeds 1 and 2 were trained as stated; seeds 3 and 4 are now trained with ``words``."""
    plugin = stated(site, CLAIMS)

    def evidence(seeds: tuple[int, ...], words: tuple[str, ...]) -> dict[str, Any]:
        schedule = make_schedule(plugin, "small", ids=["1"], seeds=seeds, words=words)
        outcomes = [
            Outcome(
                seed=task.seed, arm=task.name, status="FINISHED", definition=task.definition,
                values={"validation/loss": 3.0 + task.seed / 10},
            )
            for task in schedule.tasks
        ]  # fmt: skip
        (claim,) = schedule.claims
        return {"claims": [{**entry_of(claim, "small", outcomes, {}), "settings": [*counted(words)]}]}

    merged, notes = merge(plugin, evidence((1, 2), ()), evidence((3, 4), words))
    (entry,) = merged["claims"]
    assert set(entry["arms"]["few"]["values"]) == ({"3", "4"} if words else {"1", "2", "3", "4"})
    assert entry["differences"]["n"] == (2 if words else 4)
    assert len(notes) == (3 if words else 0)  # of each arm
    assert faults(merged) == []


def test_sizes_stand_apart_and_claims_that_are_not_run_stay(site):
    both = FUNCTIONS.replace('"small": (1, 2, 3)}', '"small": (1, 2, 3), "full": (1, 2)}')
    plugin = stated(site, both)
    committed(site)
    filed(plugin, "full")
    committed(site)
    found, _ = filed(plugin, "small")
    assert [(entry["id"], entry["size"]) for entry in found["claims"]] == [
        ("mine.1", "small"),
        ("mine.1", "full"),
    ]
    assert set(found["claims"][1]["arms"]["own"]["values"]) == {"1", "2"}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("effect=0.5", "effect=0.7", "dropped the values of mine.1 (small): its effect changed"),
        (
            '"Mine is more"',
            '"Mine is far more"',
            "its statement changed",
        ),
        ("workspace.seed + 1}", "workspace.seed + 2}", "dropped seed 1, 2, 3 of arm own of mine.1 (small)"),
        ('id="mine.1"', 'id="mine.4"', "mine.1 (small): the plugin states no such claim any more"),
    ],
)
def test_values_of_a_changed_claim_or_arm_are_dropped_loudly(site, old, new, says):
    plugin = stated(site)
    committed(site)
    filed(plugin)
    plugin = stated(site, FUNCTIONS.replace(old, new))
    committed(site)
    found, notes = filed(plugin, seeds=(7, 8))
    assert says in notes[0]
    (entry,) = found["claims"]
    kept = {"7", "8"} | ({"1", "2", "3"} if "arm own" in says else set())
    assert set(entry["arms"]["plain"]["values"]) == kept  # only the changed arm's go
    assert set(entry["arms"]["own"]["values"]) == {"7", "8"}
    assert faults(found) == []


def test_a_claim_that_can_not_be_tested_is_filed_with_why(site):
    plugin = stated(site, TWO)
    committed(site)
    filed(plugin)
    committed(site)
    found, notes = filed(plugin, seeds=(8, 9))
    assert notes == []
    assert [(entry["id"], entry["verdict"]) for entry in found["claims"]] == [
        ("mine.2", "not tested"), ("mine.1", "reproduced"),
    ]  # fmt: skip
    assert "- `mine.2` not tested: It is fast" in (plugin.folder / "README.md").read_text()


def test_a_readme_without_a_place_for_the_table_is_told(site):
    plugin = stated(site)
    (plugin.folder / "README.md").write_text("# mine\n")
    committed(site)
    _, notes = filed(plugin)
    assert notes == ["README.md has no <!-- evidence --> ... <!-- /evidence -->, so no table was written"]


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("verdict",), "opposite", "verdict: says 'opposite', the values give 'reproduced'"),
        (("differences", "mean"), 1.5, "differences.mean: says 1.5"),
        (("arms", "own", "interval"), [0.0, 1.0], "arms.own.interval[0]: says 0.0"),
        (("arms", "own", "values", "1"), 2.5, "arms.own.mean"),
        (("effect",), 1.5, "verdict: says 'reproduced', the values give 'not reproduced'"),
        (("why",), "because", "why: says 'because'"),
    ],
)
def test_what_does_not_follow_from_the_raw_values_is_found(site, path, value, says):
    found = dict(run_claims(make_schedule(stated(site), "small", words=["tracking.mlflow=false"])).evidence)
    found = json.loads(json.dumps(found))
    assert faults(found) == []
    place = found["claims"][0]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert any(f"mine.1 (small).{says}" in one for one in faults(found)), faults(found)
