"""A value that MLflow has otherwise, or lacks, is found."""

from __future__ import annotations

from pathlib import Path

from llmfw.core.proof.tracked import one_mlflow_run
from llmfw.core.tracking import open_run, read_record, sync_run


def test_another_value_and_a_missing_step_are_found_and_times_may_differ(tmp_path: Path) -> None:
    with open_run(name="r", folder=tmp_path / "run", runs=tmp_path) as run:
        for step, loss in enumerate([0.5, float("nan"), float("inf")], start=1):
            run.journal.metrics(step, {"loss": loss, "time/step_seconds": 0.25})
    sync_run(run.dir, f"sqlite:///{tmp_path / 'mlflow.db'}")
    store, file = tmp_path / "mlflow.db", run.dir / "journal.jsonl"
    kept = file.read_text()

    def told(old: str, new: str) -> str:
        assert old in kept
        file.write_text(kept.replace(old, new))
        return one_mlflow_run(store, read_record(run.dir)).said

    assert told('"loss":0.5', '"loss":0.5') == "one run, FINISHED, 6 values, none twice"
    assert "loss at step 1 has another value" in told('"loss":0.5', '"loss":0.75')
    assert "loss at step 2 has another value" in told('"NaN"', "1.0")
    assert "none twice" in told('"time/step_seconds":0.25', '"time/step_seconds":0.5')
    assert "isn't there whole" in told('"step":3', '"step":4')
