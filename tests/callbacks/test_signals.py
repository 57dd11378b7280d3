"""One signal finishes the step and saves, two leave at once, and every handler is put back."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest

from llmfw.callbacks import Signals, SignalWatch, Validation
from llmfw.callbacks.signals import StopWork
from llmfw.core.checkpoint import CheckpointCallback, SafeCheckpointIO, newest_verified, read_manifest
from llmfw.core.errors import Interrupted
from tests.toys.training import Recorder, fit

WATCHED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


class Kick(L.Callback):
    """Sends this process signals in the middle of a step."""

    def __init__(self, *numbers: int, at: int = 3) -> None:
        self.numbers, self.at = numbers, at

    def on_before_optimizer_step(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.at - 1:
            for number in self.numbers:
                os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def handlers() -> Any:
    before = {number: signal.getsignal(number) for number in WATCHED}
    yield
    assert {number: signal.getsignal(number) for number in WATCHED} == before, "handlers are put back"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("around", [True, False], ids=["watch around the run", "callback alone"])
def test_a_stop_signal_finishes_the_step_saves_and_names_the_checkpoint(
    tmp_path: Path, number: int, code: int, around: bool
) -> None:
    recorder = Recorder()
    watch = SignalWatch() if around else None
    pieces = [recorder, Kick(number), CheckpointCallback(tmp_path, every=0), Signals(watch)]
    with pytest.raises(Interrupted) as caught, watch or nullcontext():
        fit(tmp_path, *pieces, accumulate=3, dropout=0.3)
    assert (
        caught.value.exit_code == code
        and "step-00000003" in str(caught.value)
        and "--resume" in str(caught.value)
    )
    assert [report["step"] for report in recorder.reports] == [1, 2, 3]
    _, last_steps = fit(tmp_path, resume=newest_verified(tmp_path), accumulate=3, dropout=0.3)
    _, all_steps = fit(tmp_path / "whole", accumulate=3, dropout=0.3)
    assert last_steps.losses == all_steps.losses[3:]


def test_a_second_signal_leaves_at_once_and_keeps_the_durable_checkpoint(tmp_path: Path) -> None:
    recorder = Recorder()
    with pytest.raises(Interrupted, match="second signal") as caught:
        fit(
            tmp_path,
            recorder,
            Kick(signal.SIGTERM, signal.SIGTERM),
            Signals(),
            CheckpointCallback(tmp_path, every=2),
        )
    assert caught.value.exit_code == 143 and len(recorder.reports) == 2
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-00000002"]


@pytest.mark.parametrize("background", [False, True], ids=["at once", "in the background"])
def test_a_stop_signal_while_a_checkpoint_is_written_lets_it_become_whole_and_stops_at_the_next_step(
    tmp_path: Path, background: bool
) -> None:
    class KicksInTheMiddle(SafeCheckpointIO):
        def begin(self, checkpoint: Any, path: Any) -> Any:
            self.kick(checkpoint)
            return super().begin(checkpoint, path)

        def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
            self.kick(checkpoint)
            super().save_checkpoint(checkpoint, path, storage_options)

        def kick(self, checkpoint: Any) -> None:
            if checkpoint["global_step"] == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    saves = CheckpointCallback(tmp_path, every=2, background=background)
    with pytest.raises(Interrupted, match="step-00000003") as caught:
        fit(tmp_path, Signals(), saves, plugins=[KicksInTheMiddle()])
    assert caught.value.exit_code == 143
    assert [read_manifest(tmp_path / f"step-0000000{step}").step for step in (2, 3)] == [2, 3]
    assert newest_verified(tmp_path) == tmp_path / "step-00000003"


def test_usr1_saves_and_goes_on_and_each_one_counts(tmp_path: Path) -> None:
    saved: list[int] = []

    class Saves(CheckpointCallback):
        def save(self, trainer: Any) -> Path:
            saved.append(trainer.global_step)
            return super().save(trainer)

    kicks = [Kick(signal.SIGUSR1, at=2), Kick(signal.SIGUSR1, at=4)]
    kicks[1].__class__ = type("Kick2", (Kick,), {})  # Lightning wants state keys to differ
    _, recorder = fit(tmp_path, *kicks, Signals(), Saves(tmp_path, every=0))
    assert saved == [2, 4, 6] and len(recorder.reports) == 6


def test_a_closed_terminal_does_not_end_the_run(tmp_path: Path) -> None:
    _, recorder = fit(tmp_path, Kick(signal.SIGHUP), Signals())
    assert len(recorder.reports) == 6


def test_a_stop_signal_outside_training_raises_where_the_program_stands() -> None:
    def kicked() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        raise AssertionError("the signal must have come")

    words = "stopped by SIGTERM; begin anew"
    with pytest.raises(Interrupted, match=words) as caught, SignalWatch(mend="begin anew"):
        kicked()
    assert caught.value.exit_code == 143


def test_a_stop_signal_ends_a_long_validation_and_the_resumed_run_makes_up_for_it(tmp_path: Path) -> None:
    measured: list[int] = []

    def measure(module: Any, kick: bool) -> dict[str, float]:
        if kick and module.trainer.global_step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
            raise AssertionError("the signal must have come")
        measured.append(module.trainer.global_step)
        return {"loss": 1.0}

    watch = SignalWatch()
    validation = Validation(lambda module: measure(module, True), every=2, watch=watch)
    with pytest.raises(Interrupted, match="step-00000004"), watch:
        fit(tmp_path, validation, Signals(watch), CheckpointCallback(tmp_path, every=0))
    assert measured == [2]
    again = Validation(lambda module: measure(module, False), every=2)
    fit(tmp_path, again, CheckpointCallback(tmp_path, every=0), resume=newest_verified(tmp_path))
    assert measured == [2, 4], "step 6 is the last: the run measures its end itself"


def test_work_between_steps_is_not_begun_once_a_stop_is_asked() -> None:
    watch = SignalWatch()
    watch.stop = signal.SIGTERM
    with pytest.raises(StopWork), watch.interruptible():
        raise AssertionError


def test_a_thread_that_is_not_the_main_one_trains_without_handlers(tmp_path: Path) -> None:
    done: list[int] = []
    thread = threading.Thread(target=lambda: done.append(len(fit(tmp_path, Signals())[1].reports)))
    thread.start()
    thread.join()
    assert done == [6]


def test_an_error_in_training_puts_the_handlers_back(tmp_path: Path) -> None:
    class Bug(L.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fit(tmp_path, Signals(), Bug())


def test_a_signal_at_the_very_last_step_still_leaves_a_finished_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        fit(tmp_path, Kick(signal.SIGTERM, at=6), Signals(), CheckpointCallback(tmp_path, every=0))
    assert read_manifest(tmp_path / "step-00000006").step == 6
