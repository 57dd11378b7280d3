"""The micro-batch that fits: how it's found, dealt out, and kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from llmfw.core.assemble import Assembled, Settled, assemble, settle
from llmfw.core.errors import ResourceError, UsageError
from llmfw.core.estimate.auto import by_trial, choices, decide, divisors, largest, split
from llmfw.core.estimate.room import Room
from llmfw.core.plan import MEASURED
from llmfw.core.schema import TrainerConfig
from llmfw.core.tracking.record import update_record


def test_the_largest_candidate_below_the_limit_is_found_with_few_predictions() -> None:
    """Peaks of 100 + 10 m and a limit of 1,000: m = 90 fits, 91 doesn't. Beside 1 and 2 the line's guess is
    enough."""
    asked: list[int] = []

    def peak(micro_batch: int) -> int:
        asked.append(micro_batch)
        return 100 + 10 * micro_batch

    assert largest(range(1, 5000), peak, 1000) == 90
    assert len(asked) <= 4


@pytest.mark.parametrize("limit", [111, 250, 777, 3000, 10**9])
def test_peaks_that_bend_are_followed(limit: int) -> None:
    """Peaks of 100 + 10 m + m^2 / 50, as of attention: whatever is found fits, and it's at most one below the
    largest that does."""
    candidates = list(range(1, 200))

    def peak(micro_batch: int) -> int:
        return 100 + 10 * micro_batch + micro_batch**2 // 50

    best = max(one for one in candidates if peak(one) <= limit)
    found = largest(candidates, peak, limit)
    assert found is not None
    assert peak(found) <= limit
    assert best - found <= 1


def test_nothing_fits_where_the_first_doesnt() -> None:
    assert largest([1, 2, 4], lambda micro_batch: 10, 9) is None


def test_a_batch_is_dealt_out_over_processes_and_micro_batches() -> None:
    """24 samples, 2 processes, 3 at a time: 4 forward passes each. Divisors of 12: 1 2 3 4 6 12."""
    assert split(24, 3, 2).accumulate == 4
    assert divisors(12) == [1, 2, 3, 4, 6, 12]
    candidates, accumulate = choices(TrainerConfig(batch=24, devices=2), samples=999)
    assert candidates == [1, 2, 3, 4, 6, 12]
    assert [accumulate(one) for one in candidates] == [12, 6, 4, 3, 2, 1]


def test_without_a_batch_the_accumulation_stays_and_the_data_bounds_the_micro_batch() -> None:
    """100 samples, 4 forward passes a step: at most 25 at a time."""
    candidates, accumulate = choices(TrainerConfig(accumulate=4), samples=100)
    assert candidates == list(range(1, 26))
    assert accumulate(7) == 4


def test_a_batch_that_cant_be_dealt_out_names_the_sizes_that_can() -> None:
    with pytest.raises(UsageError, match=r"error\[BATCH-SPLIT\].*one of 1, 2, 5, 10, or to auto"):
        split(10, 4, 1)
    with pytest.raises(UsageError, match="a multiple of 4"):
        split(10, 1, 4)


def test_a_trial_that_runs_out_of_memory_falls_back(capsys: Any) -> None:
    """8 and 4 fail, 2 goes through; said for both."""
    tried: list[int] = []

    def trial(micro_batch: int) -> None:
        tried.append(micro_batch)
        if micro_batch > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    assert by_trial([1, 2, 4, 8], trial) == 2
    assert tried == [8, 4, 2]
    assert capsys.readouterr().err.count("ran out of memory; trying less") == 2


def test_other_failures_of_a_trial_arent_hidden() -> None:
    def trial(micro_batch: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        by_trial([1, 2], trial)


def test_trials_that_all_fail_are_an_error() -> None:
    def trial(micro_batch: int) -> None:
        raise torch.OutOfMemoryError

    with pytest.raises(ResourceError, match=r"error\[MICRO-BATCH\]"):
        by_trial([1, 2], trial)


@pytest.fixture
def words(rows_file: Callable[..., Path], tmp_path: Path) -> list[str]:
    return [
        "model=tiny-llama",
        f"data={rows_file(count=40)}",
        "data.validation=0",
        "trainer.max_steps=2",
        "trainer.accelerator=cpu",
        "tracking.mlflow=false",
        f"run.dir={tmp_path / 'run'}",
    ]


def _settled(*words: str) -> Settled:
    return settle(overrides=words)


def test_an_assembled_run_holds_a_number(words: list[str], monkeypatch: Any) -> None:
    """With endless room all 40 samples go at once; settings, values and origin agree, and a note says it."""
    _give(monkeypatch, 2**50)
    made = assemble(_settled(*words, "trainer.micro_batch=auto"), "plan")
    assert made.run.config.trainer.micro_batch == 40
    assert made.plan.settings["trainer.micro_batch"] == 40
    assert made.resolved.origin["trainer.micro_batch"].layer == "derived"
    (note,) = [note for note in made.plan.notes if note.startswith("micro_batch=auto: ")]
    assert note.startswith("micro_batch=auto: 40 (predicted ")


def test_the_plan_is_that_of_the_number_written_by_hand(words: list[str], monkeypatch: Any) -> None:
    """The note with free memory is no part of the fingerprint, so such a run can be resumed either way."""
    _give(monkeypatch, 2**50)
    found = assemble(_settled(*words, "trainer.micro_batch=auto"), "plan").plan
    by_hand = assemble(_settled(*words, "trainer.micro_batch=40"), "plan").plan
    assert found.fingerprint == by_hand.fingerprint


def test_a_batch_stays_whatever_fits(words: list[str], monkeypatch: Any) -> None:
    """8 samples a step: with endless room 8 x 1."""
    _give(monkeypatch, 2**50)
    trainer = assemble(
        _settled(*words, "trainer.micro_batch=auto", "trainer.batch=8"), "plan"
    ).run.config.trainer
    assert (trainer.micro_batch, trainer.accumulate, trainer.batch) == (8, 1, 8)


def test_a_batch_derives_the_accumulation_of_a_given_micro_batch(words: list[str]) -> None:
    trainer = assemble(
        _settled(*words, "trainer.micro_batch=2", "trainer.batch=8"), "plan"
    ).run.config.trainer
    assert (trainer.micro_batch, trainer.accumulate) == (2, 4)


def test_batch_and_accumulate_dont_go_together(words: list[str]) -> None:
    with pytest.raises(UsageError, match=r"error\[BATCH-SPLIT\].*leave one of them out"):
        assemble(_settled(*words, "trainer.batch=8", "trainer.accumulate=3"), "plan")


def test_nothing_fits_is_one_line_with_the_numbers(words: list[str], monkeypatch: Any) -> None:
    _give(monkeypatch, 2**20)
    with pytest.raises(ResourceError) as failure:
        assemble(_settled(*words, "trainer.micro_batch=auto"), "fit")
    assert "\n" not in str(failure.value)
    assert str(failure.value).startswith("error[MICRO-BATCH] trainer.micro_batch: not even one sample fits: ")
    assert "0.0 GiB are free for a test; lower or set data.max_length" in str(failure.value)


def test_a_verb_that_trains_nothing_takes_the_default(words: list[str]) -> None:
    made = assemble(_settled(*words, "trainer.micro_batch=auto"), "evaluate")
    assert made.run.config.trainer.micro_batch == TrainerConfig().micro_batch


def test_processes_that_a_launcher_started_cant_find_a_number_each(
    words: list[str], monkeypatch: Any
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(UsageError, match=r"error\[MICRO-BATCH-LAUNCHER\]"):
        assemble(_settled(*words, "trainer.micro_batch=auto"), "fit")


def test_a_process_that_was_started_by_the_run_takes_its_numbers(words: list[str], monkeypatch: Any) -> None:
    """Rank 1 of Lightning's own launcher looks at no memory."""
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LLMFW_MICRO_BATCH", "3,5")
    settled = _settled(*words, "trainer.micro_batch=auto", "trainer.devices=2")
    trainer = decide(settled, "fit", "never", _no_look).resolved.root.trainer
    assert (trainer.micro_batch, trainer.accumulate) == (3, 5)


def test_a_resumed_run_keeps_its_number_whatever_is_free(
    words: list[str], monkeypatch: Any, tmp_path: Path
) -> None:
    """Begun with endless room, broken off, resumed where not even one sample would fit: 40 stays."""
    from llmfw.core.fit import fit

    _give(monkeypatch, 2**50)
    wanted = (*words, "trainer.micro_batch=auto", "checkpoint.every=1")
    fit(assemble(_settled(*wanted), "fit"))
    update_record(tmp_path / "run", status="KILLED", ended=None)
    _give(monkeypatch, 2**20)
    with pytest.raises(ResourceError):
        assemble(_settled(*wanted), "fit")
    again = assemble(_settled(*wanted), "fit", resume="auto")
    assert again.run.config.trainer.micro_batch == 40
    assert any(note.startswith("micro_batch=auto: 40, with which ") for note in again.plan.notes)
    assert fit(again, resume="must").steps == 2


def _give(monkeypatch: Any, size: int) -> None:
    from llmfw.core.estimate.estimate import Estimator

    monkeypatch.setattr(Estimator, "room", lambda self: Room(bytes=size, how="free for a test"))


def _no_look(settled: Settled) -> Assembled:
    raise AssertionError("nothing is to be assembled")


def test_the_note_about_free_memory_is_no_part_of_a_plans_fingerprint() -> None:
    found = assemble(_settled("trainer.micro_batch=2", "data=champ-problems"), "fit").plan
    free = [replace(found, notes=(*found.notes, f"{MEASURED}2 (predicted {size} GiB)")) for size in (1, 9)]
    assert free[0].fingerprint == free[1].fingerprint == found.fingerprint
    assert replace(found, notes=(*found.notes, "something else")).fingerprint != found.fingerprint
