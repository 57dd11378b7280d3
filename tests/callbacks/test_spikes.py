"""A loss that leaps is warned of with its samples; what is told hangs on the step alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmfw.callbacks import Spikes
from llmfw.callbacks.spikes import LEAST, WINDOW, threshold
from llmfw.core.batch import Batch, LossOutput
from llmfw.core.checkpoint import CheckpointCallback
from llmfw.core.records import Loss
from tests.toys.training import cross_entropy, fit


def test_the_threshold_is_the_median_plus_deviations_and_flat_losses_have_a_floor() -> None:
    """1, 3 and six times 2: median 2, mean deviation 2/8 = 0.25; with factor 4 the threshold is 3. Eight
    times 2 deviate by nothing: 2% of 2 counts, 2 + 4 x 0.04 = 2.16.
    """
    assert threshold([1.0, 3.0, *[2.0] * 6], 4.0) == pytest.approx(3.0)
    assert threshold([2.0] * 8, 4.0) == pytest.approx(2.16)
    assert threshold([2.0] * (LEAST - 1), 4.0) is None


def leaping(steps: set[int], seen: list[int]) -> Loss:
    """The toy's loss, twentyfold in some steps."""

    def call(policy: Any, batch: Batch, reference: Any) -> LossOutput:
        output = cross_entropy(policy, batch, reference)
        step = int(batch.sample_ids[0][1:].split("-")[0]) + 1
        seen.append(step)
        return LossOutput(total=output.total * (20.0 if step in steps else 1.0), metrics=output.metrics)

    return Loss(name="leaps", call=call, batch_kind="text", unit="tokens")


def test_a_leap_is_warned_of_with_its_samples_and_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, recorder = fit(tmp_path, Spikes(tmp_path, 20.0), loss=leaping({11}, []), max_steps=14)
    assert len(recorder.reports) == 14
    [file] = tmp_path.glob("spike-step-*.json")
    told = json.loads(file.read_text())
    assert file.name == "spike-step-11.json" and told["step"] == 11
    assert told["sample_ids"] == list(recorder.reports[10]["sample_ids"])
    assert told["loss"] > told["threshold"] > told["median"]
    [line] = [record.getMessage() for record in caplog.records if "LOSS-SPIKE" in record.getMessage()]
    assert told["sample_ids"][0] in line and file.name in line


def test_a_leap_is_not_among_what_later_steps_are_compared_with(tmp_path: Path) -> None:
    spikes = Spikes(tmp_path, 20.0)
    fit(tmp_path, spikes, loss=leaping({11, 12}, []), max_steps=40)
    assert {path.name for path in tmp_path.glob("spike*")} == {"spike-step-11.json", "spike-step-12.json"}
    assert len(spikes.state_dict()["losses"]) == WINDOW


def test_a_loss_that_stays_high_is_warned_of_eight_times_and_then_has_a_new_level(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spikes = Spikes(tmp_path, 20.0)
    fit(tmp_path, spikes, loss=leaping(set(range(11, 31)), []), max_steps=30)
    named = sorted(int(path.stem.rsplit("-", 1)[1]) for path in tmp_path.glob("spike*"))
    assert named == list(range(11, 11 + LEAST))
    [line] = [record.getMessage() for record in caplog.records if "LOSS-LEVEL" in record.getMessage()]
    assert "up to step 18" in line
    state = spikes.state_dict()
    assert len(state["losses"]) == 20 and state["leaps"] == [], "steps 11 to 30"


def test_a_resumed_run_compares_with_the_same_steps(tmp_path: Path) -> None:
    """Saved after step 10: without its state the resumed run would have too few steps to notice step 11."""
    fit(tmp_path / "one", Spikes(tmp_path, 20.0), CheckpointCallback(tmp_path / "one", every=0), max_steps=10)
    again = Spikes(tmp_path, 20.0)
    saved = tmp_path / "one" / "step-00000010"
    fit(tmp_path / "two", again, loss=leaping({11}, []), max_steps=12, resume=saved)
    assert (tmp_path / "spike-step-11.json").exists()
