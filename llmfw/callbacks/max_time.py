"""Stop at the end of an optimizer step once a time is over."""

from __future__ import annotations

import logging
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

log = logging.getLogger("llmfw")
NAME = "max_time"


class MaxTime(Callback):
    """Ends training ``minutes`` after this process began it, on the monotonic clock; a resumed run has its
    time anew.

    Every rank stops at the same step. The checkpoint of that step is written, so the run can go on later.
    """

    def __init__(self, minutes: float) -> None:
        self.minutes = minutes
        self._begun: float | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let every step ask on every rank."""
        polls: Any = pl_module.polls
        polls[NAME] = self._over

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The clock starts."""
        self._begun = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop where the time is over on any rank."""
        module: Any = pl_module
        if module.agreed(NAME) and trainer.global_step < trainer.max_steps:
            log.warning("stopping at step %d: %g minutes are over", trainer.global_step, self.minutes)
            trainer.should_stop, module.stopped_by = True, NAME

    def _over(self) -> bool:
        return self._begun is not None and time.monotonic() - self._begun >= 60 * self.minutes
