"""Throughput, time limits, samples and progress."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
from lightning.pytorch.loggers.logger import Logger

from llmfw.callbacks import (
    MaxTime,
    Progress,
    Samples,
    Throughput,
)
from llmfw.callbacks import (
    max_time as max_time_module,
)
from llmfw.callbacks import (
    throughput as throughput_module,
)
from llmfw.callbacks.progress import describe
from llmfw.callbacks.samples import print_samples, printable
from llmfw.core.checkpoint import CheckpointCallback
from tests.toys.training import fit


class Log(Logger):
    """Keeps what is logged."""

    name, version = "log", "0"

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int | None, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, *_: Any, **__: Any) -> None: ...

    def of(self, name: str) -> dict[int | None, float]:
        return {step: row[name] for step, row in self.rows if name in row}


class Clock:
    """A monotonic clock that moves by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_tokens_per_second_are_real_tokens_over_the_seconds_of_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a second in each step; an hour between steps doesn't count."""
    clock, log = Clock(), Log()
    monkeypatch.setattr(throughput_module, "time", clock)

    class Time(L.Callback):
        def on_before_optimizer_step(self, *_: Any) -> None:
            clock.now += 0.5

        def on_train_batch_end(self, *_: Any) -> None:
            clock.now += 3600

    _, recorder = fit(tmp_path, Throughput(log_every=2), Time(), logger=log)
    rates = log.of("time/tokens_per_second")
    assert rates == {step: recorder.reports[step - 1]["tokens"] / 0.5 for step in (2, 4, 6)}
    assert set(log.of("time/step_seconds").values()) == {0.5}


def test_what_is_logged_each_step_carries_the_ecosystems_names(tmp_path: Path) -> None:
    log = Log()
    fit(tmp_path, logger=log, log_every=2, steps_per_epoch=4)
    assert list(log.of("loss")) == [1, 2, 4, 6] and log.of("epoch")[6] == 1.5
    assert set(log.rows[0][1]) == {"loss", "hits", "grad_norm", "lr", "tokens", "epoch"}


def test_time_over_stops_at_the_steps_end_with_a_checkpoint_and_the_rest_can_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A minute a step and 2.5 minutes: the step under way at the limit is the third."""
    clock = Clock()
    monkeypatch.setattr(max_time_module, "time", clock)

    class Time(L.Callback):
        def on_before_optimizer_step(self, *_: Any) -> None:
            clock.now += 60

    module, recorder = fit(tmp_path, Time(), MaxTime(2.5), CheckpointCallback(tmp_path, every=0))
    assert len(recorder.reports) == 3 and module.stopped_by == "max_time"
    rest, more = fit(tmp_path, Time(), MaxTime(9.0), resume=tmp_path / "step-00000003")
    assert [report["step"] for report in more.reports] == [4, 5, 6] and rest.stopped_by is None


def test_samples_come_at_their_steps_and_change_no_training(tmp_path: Path) -> None:
    import torch

    shown: list[Any] = []

    def ask(module: Any, prompts: Any) -> list[str]:
        torch.rand(7)
        return [prompt.upper() for prompt in prompts]

    samples = Samples(ask, ["a", "b"], every=4, show=lambda step, pairs: shown.append((step, pairs)))
    _, sampled = fit(tmp_path, samples, dropout=0.4)
    _, plain = fit(tmp_path, dropout=0.4)
    assert shown == [(4, [("a", "A"), ("b", "B")])] and sampled.losses == plain.losses


def test_an_answer_cannot_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_samples(3, [("[bold]p[/bold]", "clear\x1b[2J\x07 [red]x[/red] \u202e")])
    text = capsys.readouterr().err
    assert "\x1b[2J" not in text and "\x07" not in text and "\u202e" not in text
    assert "[red]x[/red]" in text and "[bold]p[/bold]" in text and "step 3" in text


def test_line_ends_and_letters_stay_and_control_characters_are_written_out() -> None:
    assert printable("ä\n\t日\x00\x1b") == "ä\n\t日\\x00\\x1b"


def test_progress_without_a_terminal_is_a_line_at_the_first_and_last_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(tmp_path, Throughput(), Progress())
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    assert [line.split()[1] for line in lines] == ["1/6", "6/6"]
    assert "loss 2." in lines[0] and "tokens/s" in lines[0] and "0:00:00 left" in lines[1]


def test_progress_on_a_terminal_is_a_bar_that_is_taken_down_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    class Bug(L.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 4:
                raise ZeroDivisionError

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with pytest.raises(ZeroDivisionError):
        fit(tmp_path, Progress(), Bug())
    assert "4/6" in terminal.getvalue() and terminal.getvalue().rstrip("\n").endswith("\x1b[?25h"), (
        "the cursor is back"
    )


def test_a_line_of_progress_holds_what_a_person_wants_to_know() -> None:
    report = {"metrics": {"loss": 0.69314, "rewards/margins": 0.0123, "lr": 1.0}, "tokens_per_second": 119.6}
    assert describe(report, 90.2) == "loss 0.6931  rewards/margins 0.0123  120 tokens/s  0:01:30 left"
