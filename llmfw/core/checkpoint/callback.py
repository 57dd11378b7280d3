"""When checkpoints are written: at the end of an optimizer step, never inside one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from llmfw.core.checkpoint.background import Background
from llmfw.core.checkpoint.durable import probe_writable, sweep
from llmfw.core.checkpoint.manifest import checkpoints, prune, step_folder
from llmfw.core.checkpoint.places import Places
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
_FAILED, _OLD = "checkpoint failed", "checkpoint old"
_HOPELESS = (NumericsError, CheckpointError, ResourceError, BusyError, Interrupted)
"""Failures after which the last periodic checkpoint is the right one, or writing another can't work."""


class CheckpointCallback(Checkpoint):
    """Saves every ``every`` optimizer steps (0: at the end only), at a step's end once the last checkpoint is
    ``minutes`` old (None: never), at the end, when a signal or another callback asks
    (``pl_module.agreed("save")``, ``trainer.should_stop``), and after an unexpected exception outside an
    optimizer step.

    Lightning runs checkpoint callbacks last, so every other callback's state belongs to the step that has
    ended. Older checkpoints go only once the new one is durable; ``keep`` (at least 2) stay.

    With ``background`` a thread flushes and renames what was staged, while training goes on; a failure of it
    shows at the next step's end. Where the folder can't be written the first time, ``places.spare`` is taken
    from then on, loudly; where that can't either, the run ends.
    """

    def __init__(
        self,
        places: Places | Path,
        *,
        every: int,
        keep: int = 2,
        background: bool = False,
        minutes: float | None = None,
    ) -> None:
        self.minutes = minutes
        self.places = places if isinstance(places, Places) else Places(Path(places))
        self.folder, self.every, self.keep = self.places.folder, every, max(2, keep)
        self.newest: Path | None = None
        """The last durable checkpoint that this process wrote or found."""
        self.background, self._background = background, Background()
        self._saved_step = -1
        self._saved_at = 0.0
        """By the monotonic clock."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Clear what a killed process left, and see what's there.

        Raises:
            UsageError: FOLDER-NOT-WRITABLE, before the first step.
        """
        polls: Any = getattr(pl_module, "polls", {})
        # asked in every step, answered alike on every rank
        polls[_FAILED], polls[_OLD] = self._background.failed, self._old
        if not trainer.is_global_zero:
            return
        probe_writable(self.folder)
        for name in sweep(self.folder):
            log.info("removed %s, left by a process that was killed", self.folder / name)
        self.newest = next((folder for folder, _ in checkpoints(self.folder)), None)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A resumed step is already on disk."""
        self._saved_step, self._saved_at = trainer.global_step, time.monotonic()

    def _old(self) -> bool:
        return self.minutes is not None and time.monotonic() - self._saved_at >= 60 * self.minutes

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where the step, the end of the run, a signal or another callback asks for it."""
        step = trainer.global_step
        due = self.every > 0 and step % self.every == 0
        last = trainer.should_stop or step >= trainer.max_steps > 0
        agreed: Callable[[str], bool] = getattr(pl_module, "agreed", lambda _: False)
        try:
            if agreed(_FAILED):
                self._settle(trainer)
            if (due or last or agreed("save") or agreed(_OLD)) and step != self._saved_step:
                self.save(trainer)
            if last:
                self._settle(trainer)
        except ResourceError as error:
            self._elsewhere(error)
            self.save(trainer)
            self._settle(trainer)

    def save(self, trainer: Trainer) -> Path:
        """Write the checkpoint of the step that has ended, then prune; every rank takes part, rank 0 writes.
        In the background the path needn't be there yet.

        Raises:
            ResourceError: on every rank, where rank 0 couldn't write.
        """
        step = trainer.global_step
        path = step_folder(self.folder, step)
        for logger in trainer.loggers:
            logger.save()  # the numbers up to this step are on disk before the step counts as done
        checkpoint = trainer._checkpoint_connector.dump_checkpoint(
            weights_only=False
        )  # on every rank: states are gathered
        self._first_alone(trainer, lambda: self._write(trainer, checkpoint, path))
        self._saved_step, self._saved_at = step, time.monotonic()
        return path

    def _first_alone(self, trainer: Trainer, work: Callable[[], None]) -> None:
        """Let rank 0 work; the others hear of its failure before it leaves, so that all do the same about it.

        Raises:
            LlmfwError: on every rank.
        """
        failure: LlmfwError | None = None
        if trainer.is_global_zero:
            try:
                work()
            except LlmfwError as error:
                failure = error
        if trainer.world_size > 1:
            told: str | None = trainer.strategy.broadcast(failure.code if failure else None)
            resource = trainer.strategy.broadcast(isinstance(failure, ResourceError))
            if told and failure is None:
                kind = ResourceError if resource else CheckpointError
                failure = kind(told, "rank 0 couldn't write the checkpoint", mend="see rank 0's message")
        if failure is not None:
            raise failure

    def _write(self, trainer: Trainer, checkpoint: dict[str, Any], path: Path) -> None:
        io: Any = trainer.strategy.checkpoint_io

        def durable() -> None:
            self.newest = path
            failpoint("ckpt.before_prune")
            prune(path.parent, self.keep)

        if not self.background:
            io.save_checkpoint(checkpoint, path)
            durable()
            return
        self._background.wait()  # two at once would need the disk's space twice
        finish = io.begin(checkpoint, path)

        def work() -> None:
            finish()
            durable()

        self._background.start(work)

    def _settle(self, trainer: Trainer) -> None:
        """Wait for what is under way, and raise what failed, on every rank."""
        self._first_alone(trainer, self._background.wait)

    def _elsewhere(self, error: ResourceError) -> None:
        """Take the spare folder from now on.

        Raises:
            ResourceError: the error itself, where the disk is full or there's no other folder to take.
        """
        spare = self.places.spare
        if error.code == "DISK-FULL" or spare is None or self.folder == spare:
            raise error
        try:
            probe_writable(spare)
            spare.chmod(0o700)
        except LlmfwError:
            raise error from None
        log.warning("%s (training goes on, checkpoints go to %s from now on; copy them away)", error, spare)
        self.folder, self._saved_step = spare, -1

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Keep the steps since the last checkpoint when something unexpected ends the run between two
        updates.
        """
        started = trainer.global_step > max(self._saved_step, 0) and self._saved_step >= 0
        whole = not getattr(pl_module, "updating", False)
        lasting = started and whole and trainer.world_size == 1 and not isinstance(exception, _HOPELESS)
        try:
            if not isinstance(exception, Interrupted):
                self._background.wait()
            if lasting:
                self.save(trainer)
                self._background.wait()
        except Exception as error:  # the first exception is the one to report
            log.warning("no checkpoint of step %d: %s", trainer.global_step, error)
