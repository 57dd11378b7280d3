"""When checkpoints are written: at the end of an optimizer step, never inside one."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from llmfw.core.checkpoint.durable import probe_writable, sweep
from llmfw.core.checkpoint.manifest import checkpoints, prune, step_folder
from llmfw.core.errors import (
    BusyError,
    CheckpointError,
    Interrupted,
    LlmfwError,
    NumericsError,
    ResourceError,
)
from llmfw.core.failpoints import failpoint

log = logging.getLogger("llmfw")
_HOPELESS = (NumericsError, CheckpointError, ResourceError, BusyError, Interrupted)
"""Failures after which the last periodic checkpoint is the right one, or writing another can't work."""


class CheckpointCallback(Checkpoint):
    """Saves every ``every`` optimizer steps (0: at the end only), at the end, when a signal or another
    callback asks (``pl_module.agreed("save")``, ``trainer.should_stop``), and after an unexpected exception
    outside an optimizer step.

    Lightning runs checkpoint callbacks last, so every other callback's state belongs to the step that has
    ended. Older checkpoints go only once the new one is durable; ``keep`` (at least 2) stay.
    """

    def __init__(self, folder: Path, *, every: int, keep: int = 2) -> None:
        self.folder, self.every, self.keep = Path(folder), every, max(2, keep)
        self.newest: Path | None = None
        """The last durable checkpoint that this process wrote or found."""
        self._saved_step = -1
        self._failures = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Clear what a killed process left, and see what's there.

        Raises:
            UsageError: FOLDER-NOT-WRITABLE, before the first step.
        """
        if not trainer.is_global_zero:
            return
        probe_writable(self.folder)
        for name in sweep(self.folder):
            log.info("removed %s, left by a process that was killed", self.folder / name)
        self.newest = next((folder for folder, _ in checkpoints(self.folder)), None)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A resumed step is already on disk."""
        self._saved_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where the step, the end of the run, a signal or another callback asks for it."""
        step = trainer.global_step
        due = self.every > 0 and step % self.every == 0
        last = trainer.should_stop or step >= trainer.max_steps > 0
        asked = bool(getattr(pl_module, "agreed", lambda _: False)("save"))
        if not (due or last or asked) or step == self._saved_step:
            return
        try:
            self.save(trainer)
        except ResourceError as error:
            self._failures += 1
            if error.code == "DISK-FULL" or last or self._failures > 1:
                raise
            log.warning("%s (training goes on; the next failure ends it)", error)

    def save(self, trainer: Trainer) -> Path:
        """Write the checkpoint of the step that has ended, then prune; every rank takes part, rank 0 writes.

        Raises:
            ResourceError: on every rank, where rank 0 couldn't write.
        """
        step = trainer.global_step
        path = step_folder(self.folder, step)
        for logger in trainer.loggers:
            logger.save()  # the numbers up to this step are on disk before the step counts as done
        failure: LlmfwError | None = None
        checkpoint = trainer._checkpoint_connector.dump_checkpoint(
            weights_only=False
        )  # on every rank: states are gathered
        if trainer.is_global_zero:
            try:
                trainer.strategy.checkpoint_io.save_checkpoint(checkpoint, path)
            except LlmfwError as error:  # the other ranks must hear of it before this one leaves
                failure = error
        if trainer.world_size > 1:
            told: str | None = trainer.strategy.broadcast(str(failure) if failure else None)
            if told and failure is None:
                failure = ResourceError(
                    "CHECKPOINT-WRITE", "rank 0 couldn't write the checkpoint", mend="see rank 0's message"
                )
        if failure is not None:
            raise failure
        self._saved_step, self._failures, self.newest = step, 0, path
        if trainer.is_global_zero:
            failpoint("ckpt.before_prune")
            prune(self.folder, self.keep)
        return path

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Keep the steps since the last checkpoint when something unexpected ends the run between two
        updates.
        """
        started = trainer.global_step > max(self._saved_step, 0) and self._saved_step >= 0
        whole = not getattr(pl_module, "updating", False)
        if not (started and whole) or trainer.world_size > 1 or isinstance(exception, _HOPELESS):
            return
        try:
            self.save(trainer)
        except Exception as error:  # the first exception is the one to report
            log.warning("no checkpoint of step %d: %s", trainer.global_step, error)
