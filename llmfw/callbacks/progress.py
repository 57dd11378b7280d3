"""How far the run is: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

SHOWN = ("loss", "rewards/margins", "rewards/accuracies")
_SECONDS_BETWEEN_LINES = 10.0


class Progress(Callback):
    """Step, time left, tokens per second, loss and margins on standard error; rank 0 alone.

    The time left comes from the steps of this process, validations and checkpoints included.
    """

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._console: Any = None
        self._begun = self._spoken = 0.0
        self._first = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar, where there's a terminal."""
        if not trainer.is_global_zero:
            return
        from rich import progress
        from rich.console import Console

        self._begun, self._first = time.monotonic(), trainer.global_step
        self._spoken = self._begun
        self._console = Console(stderr=True)
        if not self._console.is_terminal:
            return
        self._bar = progress.Progress(
            progress.BarColumn(bar_width=30),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.description}"),
            console=self._console,
        )
        self._task = self._bar.add_task("", total=trainer.max_steps, completed=trainer.global_step)
        self._bar.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Say where the run stands: at once on a bar, now and then in lines."""
        if self._console is None:
            return
        now, step = time.monotonic(), trainer.global_step
        left = (now - self._begun) / max(step - self._first, 1) * (trainer.max_steps - step)
        text = describe(outputs, left)
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=text)
        elif step in (self._first + 1, trainer.max_steps) or now - self._spoken >= _SECONDS_BETWEEN_LINES:
            self._spoken = now
            self._console.print(
                f"step {step}/{trainer.max_steps}  {text}", markup=False, highlight=False, soft_wrap=True
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the bar as it stands."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the terminal as it was."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def describe(report: Mapping[str, Any], seconds_left: float) -> str:
    """``loss 0.693  rewards/margins 0.01  120 tokens/s  0:01:30 left``."""
    parts = [f"{name} {report['metrics'][name]:.4g}" for name in SHOWN if name in report["metrics"]]
    if "tokens_per_second" in report:
        parts.append(f"{report['tokens_per_second']:.0f} tokens/s")
    return "  ".join([*parts, f"{timedelta(seconds=round(max(seconds_left, 0)))} left"])
