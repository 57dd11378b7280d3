"""Stop when a validation metric no longer improves."""

from __future__ import annotations

import logging
import math
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer

from llmfw.callbacks.validation import Validation
from llmfw.core.errors import UsageError

log = logging.getLogger("llmfw")


class EarlyStopping(Callback):
    """Ends training after ``patience`` validations running in which ``metric`` wasn't better than the best by
    more than ``min_delta``. A value that isn't finite is never better. Comes after Validation in the list of
    callbacks.

    Raises:
        UsageError: METRIC-UNKNOWN, where a validation doesn't measure ``metric``.
    """

    def __init__(
        self, metric: str, *, mode: Literal["min", "max"] = "min", patience: int = 3, min_delta: float = 0.0
    ) -> None:
        self.metric, self.mode, self.patience, self.min_delta = metric, mode, max(1, patience), min_delta
        self.best: float | None = None
        self.best_step: int | None = None
        self.waited = 0
        self._judged = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that has stopped stays so; a validation that was owed is judged.

        Raises:
            UsageError: NO-VALIDATION, where nothing would ever be judged.
        """
        callbacks: list[Callback] = getattr(trainer, "callbacks", [])
        if not any(isinstance(callback, Validation) and callback.every for callback in callbacks):
            raise UsageError(
                "NO-VALIDATION",
                f"early stopping waits for {self.metric}, and no validation is planned",
                mend="set trainer.validate_every, or trainer.early_stopping.metric=null",
                key="trainer.validate_every",
            )
        self._judge(trainer, pl_module)
        if self.waited >= self.patience:
            self._stop(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Judge the step's validation, if there was one."""
        self._judge(trainer, pl_module)

    def _judge(self, trainer: Trainer, pl_module: LightningModule) -> None:
        latest: Any = pl_module.latest_validation
        if latest is None or latest[0] != trainer.global_step or latest[0] == self._judged:
            return
        self._judged, values = latest
        if self.metric not in values:
            raise UsageError(
                "METRIC-UNKNOWN",
                f"no metric {self.metric!r} is measured",
                mend=f"choose of: {', '.join(sorted(values))}",
                key="trainer.early_stopping.metric",
            )
        self._take(values[self.metric], trainer.global_step)
        if self.waited >= self.patience:
            log.warning(
                "stopping early: %s hasn't been better than %s (step %s) for %d validations",
                self.metric,
                self.best,
                self.best_step,
                self.waited,
            )
            self._stop(trainer, pl_module)

    def _take(self, value: float, step: int) -> None:
        if not math.isfinite(value):
            log.warning("%s is %s at step %d; that is never better", self.metric, value, step)
        elif self.best is None or (value - self.best) * (-1 if self.mode == "min" else 1) > self.min_delta:
            self.best, self.best_step, self.waited = value, step, 0
            return
        self.waited += 1

    def _stop(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop = True
        pl_module.stopped_by = "early_stopping"  # type: ignore[assignment]  # TrainModule's attribute

    def state_dict(self) -> dict[str, Any]:
        """Best value and its step, and how many validations have passed since."""
        return {"best": self.best, "best_step": self.best_step, "waited": self.waited, "judged": self._judged}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state back."""
        self.best, self.best_step = state_dict["best"], state_dict["best_step"]
        self.waited, self._judged = state_dict["waited"], state_dict["judged"]
