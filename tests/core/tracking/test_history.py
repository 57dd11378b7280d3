"""What a run's files say of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmfw.core.errors import UsageError
from llmfw.core.tracking import Journal
from llmfw.core.tracking.history import read_history


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of 4 steps, rewound once from 3 to 2, with a validation at 2 and at 4."""
    record = {"id": "1" * 32, "name": "one", "created": "2026-01-01T00:00:00+00:00", "status": "FINISHED"}
    (tmp_path / "run.json").write_text(json.dumps(record))
    plan = {
        "hash": "abc",
        "plugins": [{"name": "toy", "distribution": "toy 1.0"}],
        "settings": {"seed": 3, "hub.token": "hf_" + "b" * 30},
        "facts": {"versions": {"torch": "2"}},
    }
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    (tmp_path / "cards.json").write_text(json.dumps({"toy": {"paper": {"title": "Toys", "arxiv": "1"}}}))
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.event("data", report={"source": "rows.jsonl"})
        journal.metrics(0, {"accuracy": 0.25}, stage="start")
        for step, loss in ((1, 4.0), (2, 3.0), (3, 9.0)):
            journal.metrics(step, {"loss": loss, "time/step_seconds": 1.0})
        journal.rewind(2)
        for step, loss in ((3, 2.0), (4, 1.0)):
            journal.metrics(step, {"loss": loss})
        for step, loss in ((2, 3.5), (4, 1.5)):
            journal.metrics(step, {"loss": loss, "acc": 0.5, "acc/low": 0.1, "acc/high": 0.9, "acc/n": 8},
                            stage="validation")  # fmt: skip
        journal.metrics(4, {"accuracy": 0.75, "n": 16}, stage="end")
        journal.event("trained", steps=4, stopped_by=None)
    return tmp_path


def test_a_finished_run_is_told_to_its_end(run: Path):
    found = read_history(run)
    assert (found.step, found.steps, found.seed, found.plan) == (4, 4, 3, "abc")
    assert found.training == {"loss": (4.0, 1.0)}
    held = {result.name: result for result in found.held_out}
    assert held["loss"].value == 1.5
    assert (held["acc"].low, held["acc"].high, held["acc"].n) == (0.1, 0.9, 8)
    (accuracy,) = [result for result in found.evaluations if result.name == "accuracy"]
    assert (accuracy.before, accuracy.value) == (0.25, 0.75)
    (paper,) = found.papers
    assert (paper.plugin, paper.title, paper.arxiv) == ("toy", "Toys", "1")


def test_a_checkpoint_is_told_up_to_its_step_and_no_further(run: Path):
    found = read_history(run, 2)
    assert found.training["loss"] == (4.0, 3.0)
    assert {result.name: result.value for result in found.held_out}["loss"] == 3.5
    assert found.evaluations == []


def test_secrets_are_taken_out(run: Path):
    assert "hf_bbb" not in str(read_history(run))


def test_a_run_with_nothing_but_its_record_has_an_empty_history(tmp_path: Path):
    record = {"id": "1" * 32, "name": "one", "created": "2026-01-01T00:00:00+00:00", "status": "RUNNING"}
    (tmp_path / "run.json").write_text(json.dumps(record))
    found = read_history(tmp_path)
    assert found.step == 0 and found.steps is None and not found.settings and not found.held_out


def test_no_run_is_an_error(tmp_path: Path):
    with pytest.raises(UsageError, match="NO-RUN"):
        read_history(tmp_path)
