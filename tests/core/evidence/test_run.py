"""Claims are run: arms as children, shared data, verdicts, kills, failures."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import llmfw
from llmfw.core import discovery
from llmfw.core.errors import CheckpointError, DataError, PluginError, UsageError
from llmfw.core.evidence.document import faults, read_evidence
from llmfw.core.evidence.run import finished, read_finished, run_claims
from llmfw.core.evidence.schedule import make_schedule
from llmfw.core.evidence.stated import read_claims
from llmfw.core.series import children_of
from llmfw.core.tracking import read_record
from tests.core.evidence.toys import CLAIMS, FUNCTIONS, write_mine


def schedule(site: Path, claims: str = CLAIMS, size: Any = "smoke", **more: Any):
    write_mine(site, claims)
    discovery.forget()
    sys.modules.pop("toy_mine.reproduce", None)
    return make_schedule(read_claims("mine"), size, **more)


def test_every_arm_is_a_child_and_its_values_are_those_of_the_same_run_by_hand(site):
    found = run_claims(schedule(site))
    assert found.verdicts == {"mine.1": "reproduced", "mine.2": "reproduced", "mine.3": "not tested"}
    first, second, third = found.evidence["claims"]
    by_hand = llmfw.fit(
        "model=tiny-llama", "adapter.kind=none", "trainer.max_steps=6", "optimizer.lr=0.01",
        "trainer.threads=1",
        f"data={next(found.dir.absolute().glob('seed-2/shared-*/rows.jsonl'))}",
        "tracking.mlflow=false", "seed=2", plugins=["mine"],
    )  # fmt: skip
    assert first["arms"]["many"]["values"]["2"] == by_hand.validation["loss"]
    assert second["arms"]["counted"]["values"] == {"1": 3.1, "2": 3.2, "3": 3.3}
    assert [arm["role"] for arm in first["arms"].values()] == ["baseline", "method", "control"]
    few, many = (first["arms"][name]["values"]["1"] for name in ("few", "many"))
    assert first["differences"]["values"]["1"] == few - many  # lower is better
    assert third["why"] == "needs a GPU"

    parent = read_record(found.dir)
    assert (parent.verb, parent.status, parent.plugins) == ("reproduce", "FINISHED", ("mine",))
    places = [child["place"] for child in children_of(found.dir)]
    assert places[:4] == ["seed-1/few", "seed-1/many", "seed-1/slow", "seed-1/counted"]
    assert {read_record(found.dir / place).parent for place in places} == {parent.id}
    assert read_record(found.dir / "seed-1/counted").verb == "measure"
    assert (found.dir / "seed-1/counted/files/left.txt").read_text() == "kept"
    assert not (found.dir / "seed-1/few/checkpoints").exists()
    assert (found.dir / "seed-1/few/final").is_dir()
    (shared,) = (found.dir / "seed-1").glob("shared-*")  # one folder for the three trainings
    assert (shared / "calls").read_text() == "called\n"

    cost = first["cost"]["many"]["1"]
    assert cost["tokens"] > first["cost"]["few"]["1"]["tokens"] > 0
    assert cost["seconds"] > 0
    assert cost["host_gib"] > 0
    assert "peak" in cost["memory"]
    assert faults(read_evidence(found.dir) or {}) == []


def test_the_global_generators_are_put_back_and_dont_decide_anything(site):
    random.seed(7)
    before = random.getstate()
    one = run_claims(schedule(site, size="smoke", ids=["1"], seeds=(1,)))
    assert random.getstate() == before
    random.seed(8)
    other = run_claims(schedule(site, size="smoke", seeds=(1,)))
    assert values(one)["mine.1"] == values(other)["mine.1"]


def values(found: Any) -> dict[str, Any]:
    return {
        entry["id"]: {name: arm["values"] for name, arm in entry["arms"].items()}
        for entry in found.evidence["claims"]
    }


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from llmfw.core.evidence.run import run_claims
from llmfw.core.evidence.schedule import make_schedule
from llmfw.core.evidence.stated import read_claims
run_claims(make_schedule(read_claims("mine"), "smoke"))
"""


@pytest.mark.kill
def test_a_killed_run_goes_on_to_the_same_values_bit_for_bit(site, here):
    """SIGKILL after four of six steps of the second seed's second arm: seed 1 is whole, seed 2 half."""
    plan = schedule(site)
    whole = run_claims(plan)
    Path("other").mkdir()
    env = {**os.environ, "LLMFW_CACHE": str(here / "cache")}
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(site)], cwd="other", env=env, stderr=subprocess.DEVNULL
    ) as process:
        victim = _wait_for(Path("other/runs"), "seed-2/many/journal.jsonl", '"consumed","step":4', process)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    victim = victim.absolute()
    os.chdir("other")
    assert read_record(victim).status == "RUNNING"
    kept = read_evidence(victim)
    assert kept is not None
    assert set(kept["claims"][0]["arms"]["few"]["values"]) == {"1"}  # whole pairs only
    again = run_claims(plan, resume=True)
    assert again.dir.resolve() == victim.resolve()
    assert values(again) == values(whole)
    os.chdir(here)
    with pytest.raises(CheckpointError, match="no unfinished reproduce"):
        run_claims(plan, resume=True)


def _wait_for(runs: Path, file: str, text: str, process: Any) -> Path:
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        for path in runs.glob(f"*/{file}"):
            if text in path.read_text():
                return path.parents[2]
        time.sleep(0.01)
    raise AssertionError("the run ended, or never came so far")


ELSEWHERE = """

def elsewhere(folder):
    rows = [{"id": f"s{n}", "prompt": f"say {n}", "completion": "other"} for n in range(20)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
    return {"data": folder / "rows.jsonl"}
"""


def few(settings: str) -> str:
    """The claims with another first arm."""
    return CLAIMS.replace('"few": trained("two steps", 2)', f'"few": {settings}') + ELSEWHERE


def test_arms_that_saw_other_data_are_refused_by_name(site):
    other = 'Arm(about="two", settings=trained("", 2).settings, prepare=elsewhere)'
    with pytest.raises(
        PluginError, match=r"mine.1: arms 'few' and 'many' of seed 1 saw different data: sample 1"
    ):
        run_claims(schedule(site, few(other), ids=["1"]))
    allowed = few(other.replace("prepare", "own_data=True, prepare"))
    assert run_claims(schedule(site, allowed, ids=["1"])).verdicts["mine.1"] != "failed"


def test_another_order_of_the_same_data_is_refused_too(site):
    """A larger batch groups other samples by length."""
    other = (
        'Arm(about="two", settings={**trained("", 2).settings, "trainer.micro_batch": 4}, prepare=prepare)'
    )
    with pytest.raises(PluginError, match="arms 'few' and 'many' of seed 1 saw different data"):
        run_claims(schedule(site, few(other), ids=["1"]))


def test_a_control_is_compared_too_and_an_arm_that_trained_nothing(site):
    """The control differs from the method alone, as the baseline measures and trains nothing."""
    other = CLAIMS.replace('trained("six small steps", 6, 1e-4)', 'trained("no step", 0)')
    with pytest.raises(PluginError, match="arms 'many' and 'slow' of seed 1 .* one of them saw no data"):
        run_claims(schedule(site, other, ids=["1"]))


def test_an_arm_that_raises_fails_with_its_plugin_named_and_the_others_go_on(site):
    broken = CLAIMS.replace(
        '    return {"count"',
        '    if workspace.seed == 2:\n        raise ValueError("no words")\n    return {"count"',
    )
    told: list[Any] = []
    with pytest.raises(
        PluginError, match=r"plugin 'mine': 1 arms failed; the first: arm counted, seed 2"
    ) as raised:
        run_claims(schedule(site, broken), told=told.append)
    assert raised.value.code == "EVIDENCE-FAILED"
    (found,) = told
    assert found.verdicts == {"mine.1": "reproduced", "mine.2": "failed", "mine.3": "not tested"}
    (line,) = found.failures
    assert "reproduce.py" in line
    assert "plugin 'mine' (toy-mine 1.0)" in line
    assert "no words" in line
    assert read_record(found.dir).status == "FAILED"
    assert read_record(found.dir / "seed-2/counted").status == "FAILED"
    failed = [child["place"] for child in children_of(found.dir) if child["status"] == "FAILED"]
    assert failed == ["seed-2/counted"]


def test_a_failed_arm_is_tried_again_and_the_others_are_not(site, here):
    """The function fails while there's no file ``now``; the trainings aren't run again."""
    waiting = CLAIMS.replace(
        "    random.random()\n",
        '    if not __import__("pathlib").Path("now").exists():\n        raise OSError("not yet")\n',
    )
    plan = schedule(site, waiting)
    with pytest.raises(PluginError, match="3 arms failed"):
        run_claims(plan)
    (journal,) = here.glob("runs/*/seed-1/few/journal.jsonl")
    before = journal.read_bytes()
    Path("now").touch()
    found = run_claims(plan, resume=True)
    assert found.verdicts["mine.2"] == "reproduced"
    assert journal.read_bytes() == before
    assert [child["status"] for child in children_of(found.dir)] == ["FINISHED"] * 9


def test_a_training_that_fails_fails_the_claim_and_what_starts_from_it(site):
    nowhere = CLAIMS.replace('trained("six steps", 6)', 'trained("six steps", 6, 1e30)').replace(
        'trained("six small steps", 6, 1e-4)', 'trained("after it", 6, after="many")'
    ).replace('"trainer.threads": 1,', '"trainer.threads": 1, "optimizer.clip": 0,')  # fmt: skip
    told: list[Any] = []
    with pytest.raises(PluginError):
        run_claims(schedule(site, nowhere, ids=["1"], seeds=(1,)), told=told.append)
    assert told[0].verdicts["mine.1"] == "failed"
    assert "NON-FINITE" in told[0].failures[0]
    assert "arm slow, seed 1: arm many, from whose weights it starts, failed" in told[0].failures[1]


def test_an_arm_starts_from_anothers_weights_and_a_function_is_told_where_they_lie(site):
    after = CLAIMS.replace(
        'trained("six small steps", 6, 1e-4)', 'trained("four more", 4, after="few")'
    ).replace('Arm(about="a function", run=counted)', 'Arm(about="a function", run=weighed, after="few")')
    after += """

def weighed(workspace):
    return {"count": float((workspace.starts_from / "model.safetensors").stat().st_size)}
"""
    found = run_claims(schedule(site, after, seeds=(1,)))
    first, second = found.evidence["claims"][:2]
    assert first["arms"]["slow"]["values"]["1"] < first["arms"]["few"]["values"]["1"]
    assert second["arms"]["counted"]["values"]["1"] > 1000
    config = json.loads((found.dir / "seed-1/slow/plan.json").read_text())["settings"]
    assert config["model.name"] == str(found.dir / "seed-1/few/final")


def test_a_metric_that_no_arm_has_fails_the_claim_with_near_names(site):
    told: list[Any] = []
    with pytest.raises(PluginError):
        run_claims(schedule(site, FUNCTIONS.replace('metric="count"', 'metric="counts"')), told=told.append)
    assert told[0].verdicts == {"mine.1": "failed"}
    assert "it has no metric 'counts' (but count)" in told[0].failures[0]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("[1]", "values that aren't numbers"),
        ('{"count": "3"}', "values that aren't numbers"),
        ("None", "aren't"),
    ],
)
def test_values_that_are_no_numbers_are_a_failure(site, given, says):
    claims = FUNCTIONS.replace('{"count": workspace.seed}', given)
    with pytest.raises(PluginError, match=says):
        run_claims(schedule(site, claims, seeds=(1,)))


def test_a_function_may_give_one_value_an_item(site):
    claims = FUNCTIONS.replace("effect=0.5,", "effect=0.5, items=True,").replace(
        '{"count": workspace.seed + 1}', '{"count": [2, 3, 4, 5]}'
    ).replace('{"count": workspace.seed}', '{"count": [1, 1, 1, 1]}')  # fmt: skip
    found = run_claims(schedule(site, claims))
    (entry,) = found.evidence["claims"]
    assert entry["verdict"] == "reproduced"
    assert entry["differences"]["values"]["1"] == [1.0, 2.0, 3.0, 4.0]
    assert entry["differences"]["n"] == 4
    assert faults(read_evidence(found.dir) or {}) == []


def test_settings_of_the_command_line_hold_for_every_training_and_a_wrong_one_is_refused_at_once(site, here):
    plan = schedule(site, ids=["1"], seeds=(1,), words=["trainer.max_steps=1", "ld_dpo.alpha=0.5"])
    found = run_claims(plan)
    settings = json.loads((found.dir / "seed-1/many/plan.json").read_text())["settings"]
    assert settings["trainer.max_steps"] == 1
    assert "ld_dpo.alpha" not in settings  # that plugin is off here
    assert found.evidence["claims"][0]["settings"] == ["trainer.max_steps=1", "ld_dpo.alpha=0.5"]
    with pytest.raises(UsageError, match=r"trainer.max_stepz"):
        run_claims(schedule(site, words=["trainer.max_stepz=1"]))
    with pytest.raises(UsageError, match="--seeds"):  # it was overruled in silence
        run_claims(schedule(site, words=["seed=5"]))
    assert len(list((here / "runs").iterdir())) == 1


def test_size_smoke_tells_mlflow_nothing_unless_asked(site):
    quiet = run_claims(schedule(site, FUNCTIONS))
    assert not read_record(quiet.dir).mlflow
    assert not Path("runs/mlflow.db").exists()
    asked = run_claims(schedule(site, FUNCTIONS, words=["tracking.mlflow=true", "run.dir=here"]))
    assert asked.dir == Path("here")
    child, parent = (read_record(asked.dir / place).mlflow for place in ("seed-1/own", "."))
    assert child["run_id"] != parent["run_id"]
    from mlflow import MlflowClient

    run = MlflowClient(parent["uri"]).get_run(child["run_id"])
    claims = MlflowClient(parent["uri"]).get_run(parent["run_id"]).data.metrics
    assert claims["claim/mine.1"] == 1.0
    assert run.data.tags["mlflow.parentRunId"] == parent["run_id"]
    assert run.data.metrics["end/count"] == 2.0


def test_a_finished_run_is_found_again_and_a_changed_one_is_not(site):
    plan = schedule(site, FUNCTIONS)
    assert finished(plan) is None
    found = run_claims(plan)
    assert finished(plan).dir == found.dir
    assert finished(schedule(site, FUNCTIONS + "\n# changed\n")) is None


def test_a_finished_run_without_its_evidence_is_an_error_of_one_line(site):
    plan = schedule(site, FUNCTIONS)
    found = run_claims(plan)
    assert read_finished(plan, found.dir).evidence == found.evidence
    (found.dir / "evidence.json").unlink()
    with pytest.raises(DataError, match=r"evidence.json: the run of these claims has finished, but") as told:
        read_finished(plan, finished(plan).dir)
    assert told.value.code == "EVIDENCE-FILE"
    assert "\n" not in str(told.value)


def test_python_has_it_too(site):
    write_mine(site, FUNCTIONS)
    discovery.forget()
    found = llmfw.reproduce("mine", size="smoke", seeds=[1, 2, 3], claims=["1"])
    assert found.verdicts == {"mine.1": "reproduced"}
