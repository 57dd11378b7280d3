"""Validation at its steps, and a stop that patience, direction and NaN decide."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmfw.callbacks import EarlyStopping, Validation
from llmfw.core.checkpoint import CheckpointCallback, SafeCheckpointIO
from llmfw.core.errors import UsageError
from tests.toys.training import fit


def serve(values: list[float]) -> Callable[[Any], dict[str, float]]:
    """The n-th validation's value, by the step it falls on (validations every step)."""
    return lambda module: {"loss": values[module.trainer.global_step - 1]}


def steps_with(tmp_path: Path, values: list[float], **settings: Any) -> tuple[int, Any, EarlyStopping]:
    stopping = EarlyStopping("validation/loss", **settings)
    module, recorder = fit(tmp_path, Validation(serve(values), every=1), stopping, max_steps=len(values) + 1)
    return len(recorder.reports), module, stopping


@pytest.mark.parametrize(
    ("values", "settings", "steps"),
    [
        ([5, 4, 3, 2, 1], {"patience": 1}, 6),
        ([5, 4, 4.5, 4.4, 1], {"patience": 2}, 4),
        ([5, 4, 4.5, 3.9, 4], {"patience": 2}, 6),
        ([1, 2, 3, 2.5, 2.4], {"patience": 2, "mode": "max"}, 5),
        ([5, 4.95, 4.91, 1, 1], {"patience": 2, "min_delta": 0.1}, 3),
        ([5, math.nan, -math.inf, 1, 1], {"patience": 2}, 3),
        ([math.nan, math.nan, 1, 1, 1], {"patience": 2}, 2),
        ([5, 5, 5, 5, 5], {"patience": 0}, 2),
    ],
    ids=[
        "improves",
        "patience over",
        "improves in time",
        "max",
        "delta",
        "nan is never best",
        "nan from the start",
        "zero is one",
    ],
)
def test_training_ends_after_patience_validations_without_improvement(
    tmp_path: Path, values: list[float], settings: dict[str, Any], steps: int
) -> None:
    done, module, _ = steps_with(tmp_path, values, **settings)
    assert done == steps
    assert module.stopped_by == ("early_stopping" if steps < 6 else None)


def test_nan_is_never_the_best_value(tmp_path: Path) -> None:
    _, _, stopping = steps_with(tmp_path, [math.nan, 3.0, math.nan], patience=9)
    assert (stopping.best, stopping.best_step, stopping.waited) == (3.0, 2, 1)


def test_an_unknown_metric_names_those_that_are_measured(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="validation/loss") as caught:
        fit(tmp_path, Validation(serve([1.0] * 9), every=1), EarlyStopping("validation/lose"))
    assert caught.value.key == "trainer.early_stopping.metric"


@pytest.mark.parametrize(
    "pieces", [[], [Validation(lambda module: {}, every=0)]], ids=["none", "at the end only"]
)
def test_early_stopping_without_validations_is_refused_before_the_first_step(
    tmp_path: Path, pieces: Any
) -> None:
    with pytest.raises(UsageError) as caught:
        fit(tmp_path, *pieces, EarlyStopping("validation/loss"))
    assert caught.value.key == "trainer.validate_every"


def test_patience_goes_on_counting_after_a_resume_and_a_stopped_run_stays_stopped(tmp_path: Path) -> None:
    """Worse from step 2 on, patience 3: stops at 4, also when 4 is reached by a second process."""
    values = [1.0, 2.0, 2.0, 2.0, 2.0, 2.0]

    def run(**changes: Any) -> list[int]:
        pieces = [
            Validation(serve(values), every=1),
            EarlyStopping("validation/loss"),
            CheckpointCallback(tmp_path, every=1),
        ]
        _, recorder = fit(tmp_path, *pieces, **changes)
        return [report["step"] for report in recorder.reports]

    assert run() == [1, 2, 3, 4]
    assert run(resume=tmp_path / "step-00000003") == [4]
    assert run(resume=tmp_path / "step-00000004") == []


@pytest.mark.parametrize(("every", "steps"), [(0, []), (1, [1, 2, 3, 4, 5]), (2, [2, 4]), (3, [3]), (6, [])])
def test_validation_falls_on_multiples_but_not_on_the_last_step(
    tmp_path: Path, every: int, steps: list[int]
) -> None:
    seen: list[int] = []

    def measure(module: Any) -> dict[str, float]:
        seen.append(module.trainer.global_step)
        return {"loss": 0.5, "accuracy": 1}

    module, _ = fit(tmp_path, Validation(measure, every=every))
    assert seen == steps
    last = (steps[-1], {"validation/loss": 0.5, "validation/accuracy": 1.0}) if steps else None
    assert module.latest_validation == last


def test_the_validation_of_a_saved_step_is_not_repeated_and_a_lost_one_is(tmp_path: Path) -> None:
    seen: list[int] = []

    def measure(module: Any) -> dict[str, float]:
        seen.append(module.trainer.global_step)
        return {"loss": 0.5}

    fit(tmp_path, Validation(measure, every=2), CheckpointCallback(tmp_path, every=2, keep=9))
    state = SafeCheckpointIO().load_checkpoint(tmp_path / "step-00000004")["callbacks"]
    assert state["Validation"] == {"owed": False}
    fit(tmp_path, Validation(measure, every=2), resume=tmp_path / "step-00000002")
    assert seen == [2, 4, 4]
