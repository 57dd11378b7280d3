"""Validation at the ends of optimizer steps, driven by us and not by Lightning's epochs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from llmfw.callbacks.signals import SignalWatch, StopWork

PREFIX = "validation/"


class Validation(Callback):
    """Calls ``measure(pl_module) -> name -> value`` every ``every`` optimizer steps (0: never) and logs what
    it says under ``validation/NAME``; ``pl_module.latest_validation`` has it for others.

    The last step is left out: a run measures its end itself. A stop signal ends a validation; the checkpoint
    then remembers that it's owed, and the resumed run begins with it.
    """

    def __init__(
        self, measure: Callable[[Any], Mapping[str, float]], every: int, watch: SignalWatch | None = None
    ) -> None:
        self.measure, self.every, self.watch = measure, every, watch
        self._owed = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A validation that a signal cut short."""
        if self._owed:
            self._run(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Validate where the step is a multiple of ``every``."""
        step = trainer.global_step
        if self.every > 0 and step % self.every == 0 and step != trainer.max_steps:
            self._run(trainer, pl_module)

    def _run(self, trainer: Trainer, pl_module: LightningModule) -> None:
        step, module = trainer.global_step, pl_module
        self._owed = True
        alone = self.watch is not None and trainer.world_size == 1  # other ranks would wait for a gather
        autocast = getattr(trainer.precision_plugin, "autocast_context_manager", nullcontext)
        try:
            with self.watch.interruptible() if alone and self.watch else nullcontext(), autocast():
                found = self.measure(module)
        except StopWork:
            return
        self._owed = False
        values = {PREFIX + name: float(value) for name, value in found.items()}
        module.latest_validation = (step, values)  # type: ignore[assignment]  # TrainModule's attribute
        for logger in trainer.loggers:
            logger.log_metrics(values, step=step)

    def state_dict(self) -> dict[str, Any]:
        """Whether a validation of the saved step is still to be done."""
        return {"owed": self._owed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state back."""
        self._owed = bool(state_dict["owed"])
