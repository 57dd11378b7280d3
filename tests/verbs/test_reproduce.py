"""``llmfw reproduce`` as it's typed: what it prints, files and returns."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmfw.cli import run
from llmfw.core import discovery
from tests.core.evidence.toys import CLAIMS, FUNCTIONS, committed, write_mine
from tests.toys import installed, write_toy

OFF = "tracking.mlflow=false"


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose plugins are installed, beside the current one."""
    monkeypatch.setenv("LLMFW_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with installed(tmp_path / "site"):
        yield tmp_path / "site"


def mine(site: Path, claims: str = FUNCTIONS) -> Path:
    folder = write_mine(site, claims)
    discovery.forget()
    sys.modules.pop("toy_mine.reproduce", None)
    return folder


def test_the_table_says_means_intervals_differences_and_verdicts(site, capsys):
    mine(site, CLAIMS)
    assert run(["reproduce", "mine", "--size", "smoke", "--claim", "2", "--claim", "mine.3"]) == 0
    out, err = capsys.readouterr()
    assert "mine, size smoke" in out
    assert "counted (method)" in out
    assert "3.2 [2.952, 3.448]" in out  # 3.1, 3.2, 3.3: half is 4.302653 x 0.1 / sqrt(3) = 0.248414
    assert "mine.2   Words are counted (count, at 2 or higher; 3 seeds. The paper: none)" in out
    assert "mine.3   It is fast (The paper: Table 2: 1.9x)\n         not tested: needs a GPU" in out
    assert "cost     counted:" in out
    assert "arm 2 of 3, about 0 s left: seed 2, counted (a function)" in err


def test_json_has_the_evidence(site, capsys):
    mine(site)
    assert run(["reproduce", "mine", "--size", "smoke", "--json", "--seeds", "4,5,6"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["verdicts"] == {"mine.1": "reproduced"}
    assert told["evidence"]["command"] == "llmfw reproduce mine --size smoke --seeds 4,5,6"
    assert list(told["evidence"]["claims"][0]["arms"]["own"]["values"]) == ["4", "5", "6"]
    assert json.loads((Path(told["dir"]) / "evidence.json").read_text()) == told["evidence"]


def test_a_negative_result_is_a_good_result_and_a_failed_arm_is_not(site, capsys):
    mine(site, FUNCTIONS.replace("workspace.seed + 1", "workspace.seed - 1"))
    assert run(["reproduce", "mine", OFF]) == 0
    assert "opposite" in capsys.readouterr().out
    mine(site, FUNCTIONS.replace("workspace.seed + 1", "1 / 0"))
    assert run(["reproduce", "mine", OFF]) == 4
    out, err = capsys.readouterr()
    assert "failed" in out  # the table is shown all the same
    assert err.splitlines()[-1].startswith("error[EVIDENCE-FAILED]")


def test_file_runs_and_files_and_resume_files_what_has_finished_without_running(site, capsys):
    folder = mine(site)
    committed(site)
    assert run(["reproduce", "mine", OFF]) == 0
    assert not (folder / "evidence.json").exists()
    assert run(["reproduce", "mine", OFF, "--file", "--resume"]) == 0
    assert len(list(Path("runs").iterdir())) == 1
    assert json.loads((folder / "evidence.json").read_text())["claims"][0]["verdict"] == "reproduced"
    assert "filed    " in capsys.readouterr().err
    committed(site)
    assert run(["reproduce", "mine", OFF, "--file", "--add-seeds", "1"]) == 0
    (entry,) = json.loads((folder / "evidence.json").read_text())["claims"]
    assert list(entry["arms"]["own"]["values"]) == ["1", "2", "3", "4"]


def test_what_can_not_be_filed_is_refused_before_anything_runs(site, capsys):
    folder = mine(site)
    committed(site)
    assert run(["reproduce", "mine", "--size", "smoke", "--file"]) == 2
    assert "error[EVIDENCE-SIZE]" in capsys.readouterr().err
    (folder / "plugin.py").open("a").write("# changed\n")
    assert run(["reproduce", "mine", "--file"]) == 2
    assert "error[EVIDENCE-DIRTY]" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_all_runs_every_plugin_and_lists_those_that_state_nothing(site, capsys, monkeypatch):
    mine(site)
    write_toy(site, "silent", FUNCTIONS.split("CLAIMS")[0].replace("Arm, Claim", "Plugin as Toy"))
    write_mine(site, FUNCTIONS.replace("workspace.seed + 1", "1 / 0"))
    for name in ("other",):
        write_toy(site, name, "from llmfw import Plugin as Toy\n", files={
            "reproduce.py": FUNCTIONS.replace("mine.1", "other.1")
        })  # fmt: skip
    discovery.forget()
    cards = {name: card for name, card in discovery.cards().items() if name in ("mine", "other", "silent")}
    monkeypatch.setattr(discovery, "cards", lambda: cards)
    assert run(["reproduce", "--all", "--size", "smoke"]) == 4
    out, err = capsys.readouterr()
    assert "states no claims: silent" in err
    assert "other, size smoke" in out  # after the one that failed
    assert "error[EVIDENCE-FAILED]" in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "name one plugin"),
        (["mine", "--all"], "name one plugin"),
        (["--all", "--file"], "for one plugin"),
        (["mine", "--seeds", "1,x"], "no list of whole numbers"),
        (["mine", "--seeds", "1,1"], "have to differ"),
        (["mine", "--seeds", "1", "--add-seeds", "2"], "say two things"),
        (["mine", "--claim", "9"], "states no claim 'mine.9'"),
        (["mime"], "no plugin 'mime' is installed; did you mean mine?"),
        (["mine", "--size", "full"], "has seeds for size full"),
        (["mine", "--resume", OFF], "no unfinished reproduce"),
    ],
)
def test_what_can_not_be_meant_is_refused(site, capsys, words, says):
    mine(site)
    assert run(["reproduce", *words]) in (2, 5)
    assert says in capsys.readouterr().err
    assert not Path("runs").exists()
