"""Sweeps: every combination a nested run, one best, interrupted and gone on with, compared."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest

import llmfw
from llmfw.core.errors import CheckpointError, Interrupted, UsageError
from llmfw.core.sweep.run import sweep
from llmfw.core.sweep.trials import Trial, best_of
from llmfw.core.tracking import list_runs, pick_runs, read_journal, read_record
from llmfw.core.tracking.comparison import compare
from tests.toys import installed, write_toy
from tests.toys.preference import PREFERENCE

SMALL = ("model=tiny-llama", "trainer.max_steps=2", "trainer.progress=false", "tracking.mlflow=false")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with rows and pairs, and a cache of its own."""
    monkeypatch.setenv("LLMFW_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    rows = [{"id": f"r{i}", "prompt": f"say {i}", "completion": f"it is {i}"} for i in range(20)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = [
        {"id": f"p{i}", "prompt": f"say {i}", "chosen": f"it is {i}", "rejected": f"no, {i + 1}, I think"}
        for i in range(12)
    ]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    return tmp_path


def test_a_grid_runs_every_combination_and_names_the_best():
    told: list[Any] = []
    result = sweep([*SMALL, "data=rows.jsonl", "optimizer.lr=1e-4,1e-2", "seed=1,2"], told=told.append)
    assert [dict(trial.settings) for trial in result.trials] == [
        {"optimizer.lr": lr, "seed": seed} for lr in ("1e-4", "1e-2") for seed in ("1", "2")
    ]
    assert told == list(result.trials)
    by_hand = llmfw.fit(*SMALL, "data=rows.jsonl", "optimizer.lr=1e-2", "seed=2")
    assert result.trials[3].value == by_hand.validation["loss"]
    assert result.best is not None
    assert result.best.value == min(trial.value for trial in result.trials)
    parent = read_record(result.dir)
    assert (parent.verb, parent.status) == ("sweep", "FINISHED")
    children = [read_record(trial.dir) for trial in result.trials]
    assert {child.parent for child in children} == {parent.id}
    best = read_journal(result.dir / "journal.jsonl").series["best/validation/loss"]
    assert best[-1] == (3, result.best.value)


def test_compare_puts_a_sweeps_runs_side_by_side_and_leaves_the_sweep_out_of_its_choice():
    result = sweep([*SMALL, "data=rows.jsonl", "optimizer.lr=1e-4,1e-2"])
    records, left = pick_runs([str(result.dir)])
    assert left == ""
    assert result.best is not None and records[0].dir == result.best.dir
    found = compare(records, None)
    assert [one.key for one in found.settings] == ["optimizer.lr"]
    assert [record.verb for record in list_runs()] == ["sweep"]
    with pytest.raises(UsageError, match="no run with values"):
        pick_runs()


def test_the_references_log_probs_are_computed_once_for_a_whole_sweep(capsys):
    result = sweep(
        [*SMALL, "data=pairs.jsonl", "ld_dpo.alpha=0.0,0.5,1.0"], plugins=["ld_dpo"], metric="validation/loss"
    )
    told = capsys.readouterr().err
    assert told.count("reference log-probs: computing") == 1
    assert "trainer.reference=cache" not in told  # the plugin's own settings say it already
    by_hand = llmfw.fit(
        *SMALL, "data=pairs.jsonl", "ld_dpo.alpha=0.5", "trainer.reference=cache", plugins=["ld_dpo"]
    )
    assert result.trials[1].value == by_hand.validation["loss"]


def test_a_plugin_that_chose_no_reference_gets_the_cache_and_a_line_says_so(tmp_path: Path, capsys):
    write_toy(tmp_path / "site", "pref", PREFERENCE)
    with installed(tmp_path / "site"):
        result = sweep([*SMALL, "data=pairs.jsonl", "pref.scale=0.5,1.0"], plugins=["pref"])
        told = capsys.readouterr().err
        assert "note: trainer.reference=cache: one computation" in told
        assert told.count("reference log-probs: computing") == 1
        by_hand = llmfw.fit(*SMALL, "data=pairs.jsonl", "trainer.reference=copy", plugins=["pref"])
    assert result.trials[1].value == pytest.approx(by_hand.validation["loss"], rel=1e-5)


def test_a_chosen_reference_stays(capsys):
    sweep([*SMALL, "data=pairs.jsonl", "trainer.reference=copy", "ld_dpo.alpha=0.0,1.0"], plugins=["ld_dpo"])
    assert "trainer.reference=cache" not in capsys.readouterr().err


def test_draws_depend_on_their_number_alone():
    words = [*SMALL, "data=rows.jsonl", "optimizer.lr=log(1e-5..1e-2)", "adapter.kind=none,lora"]
    first = sweep(words, sampler="random", trials=3)
    again = sweep(words, sampler="random", trials=3)
    assert [trial.settings for trial in first.trials] == [trial.settings for trial in again.trials]
    assert len({trial.settings["optimizer.lr"] for trial in first.trials}) == 3
    assert all(1e-5 <= float(trial.settings["optimizer.lr"]) <= 1e-2 for trial in first.trials)


def test_tpe_searches():
    result = sweep([*SMALL, "data=rows.jsonl", "optimizer.lr=log(1e-5..1e-2)"], sampler="tpe", trials=2)
    assert [trial.status for trial in result.trials] == ["FINISHED"] * 2


def test_a_trial_that_fails_is_noted_and_the_others_go_on():
    words = [word for word in SMALL if not word.startswith("trainer.max_steps")]
    words += ["data=rows.jsonl", "optimizer.clip=0", "trainer.max_steps=4", "optimizer.lr=1e30,1e-3"]
    result = sweep(words)
    assert [trial.status for trial in result.trials] == ["FAILED", "FINISHED"]
    assert "NON-FINITE" in str(result.trials[0].error)
    assert result.best == result.trials[1]


class _Kick(L.Callback):
    """SIGTERM once, in the first step of the second trial."""

    done = False

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.default_root_dir.endswith("001") and trainer.global_step == 1 and not _Kick.done:
            _Kick.done = True
            os.kill(os.getpid(), signal.SIGTERM)


def test_an_interrupted_sweep_goes_on_where_it_stood(monkeypatch):
    from llmfw.core.training import train

    whole = sweep([*SMALL, "data=rows.jsonl", "optimizer.lr=1e-4,1e-3,1e-2"])
    callbacks = train._callbacks
    monkeypatch.setattr(train, "_callbacks", lambda *given: [_Kick(), *callbacks(*given)])
    with pytest.raises(Interrupted):
        sweep([*SMALL, "data=rows.jsonl", "optimizer.lr=1e-4,1e-3,1e-2"])
    stopped = next(record for record in list_runs() if record.status == "KILLED")
    assert read_record(stopped.dir / "trials" / "001").status == "KILLED"
    result = sweep([*SMALL, "data=rows.jsonl", "optimizer.lr=1e-4,1e-3,1e-2"], resume=True)
    assert result.dir == stopped.dir
    assert [trial.value for trial in result.trials] == [trial.value for trial in whole.trials]
    with pytest.raises(CheckpointError, match="no unfinished sweep"):
        sweep([*SMALL, "data=rows.jsonl", "optimizer.lr=1e-4,1e-3,1e-2"], resume=True)


@pytest.mark.parametrize(
    ("words", "more", "says"),
    [
        (["seed=1"], {}, "nothing is swept"),
        (["optimizer.rl=1,2"], {}, "optimizer.rl"),
        (["optimizer.lr=1e-4,fast"], {}, "optimizer.lr"),
        (["run.name=a,b"], {}, "can't be swept"),
        (["seed=1,2"], {"metric": "toy/wins"}, "doesn't tell which direction"),
        (["seed=1,2,3"], {"trials": 2}, "3 combinations"),
        (["seed=1,2"], {"sampler": "random"}, "how many runs"),
        (["optimizer.lr=1e-5..1e-4"], {}, "range can't be walked"),
    ],
)
def test_what_can_not_be_swept_is_refused_before_any_run(words, more, says):
    with pytest.raises(UsageError, match=says):
        sweep([*SMALL, "data=rows.jsonl", *words], **more)
    assert list_runs() == []


def test_a_value_that_is_not_finite_is_never_the_best():
    trials = [
        Trial(number=number, settings={}, status="FINISHED", dir=Path("x"), value=value)
        for number, value in enumerate((float("nan"), float("-inf"), 2.0, 1.0, 1.0))
    ]
    assert best_of(trials, "min") is trials[3]
    assert best_of(trials, "max") is trials[2]
    assert best_of(trials[:2], "min") is None


def test_a_metric_that_no_run_has_ends_the_sweep_with_near_names():
    with pytest.raises(UsageError, match=r"no metric 'validation/los'; choose of: validation/loss"):
        sweep([*SMALL, "data=rows.jsonl", "seed=1,2"], metric="validation/los", mode="min")
