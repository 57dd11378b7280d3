"""Tokens per second of the optimizer steps themselves."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class Throughput(Callback):
    """Logs ``time/tokens_per_second`` (tokens that aren't padding, of all processes) and
    ``time/step_seconds``.

    The clock runs from the step's begin to its end, without loading, validation, samples and checkpoints. Put
    it first among callbacks. The report gets ``tokens_per_second``, the module's ``train_seconds`` the sum.
    """

    def __init__(self, log_every: int = 1) -> None:
        self.log_every = max(1, log_every)
        self._begun = 0.0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock."""
        self._begun = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop the clock."""
        seconds = max(time.monotonic() - self._begun, 1e-9)
        module: Any = pl_module
        module.train_seconds = getattr(module, "train_seconds", 0.0) + seconds
        outputs["tokens_per_second"] = outputs["tokens"] / seconds
        if outputs["step"] % self.log_every and outputs["step"] != trainer.max_steps:
            return
        values = {"time/tokens_per_second": outputs["tokens_per_second"], "time/step_seconds": seconds}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=outputs["step"])
