"""Warn where a step's loss leaps, and write down which samples it had."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

log = logging.getLogger("llmfw")
WINDOW, LEAST = 32, 8
"""Steps that a loss is compared with, and how many there must be; after that many leaps on end the loss has
a new level."""
_FLAT = 0.02
"""A deviation smaller than this share of the median counts as this much: some losses hardly move."""


class Spikes(Callback):
    """A loss that lies ``factor`` mean deviations above the median of the last 32 steps is warned of; its
    samples go to ``folder/spike-step-N.json``. Training goes on.

    The step that leaps isn't among those that later ones are compared with, unless the next ones stay as
    high: after eight of them on end this is the loss's level, which is said once.
    """

    def __init__(self, folder: Path, factor: float) -> None:
        self.folder, self.factor = folder, factor
        self._losses: list[float] = []
        self._leaps: list[float] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Compare the step's loss with those before."""
        metrics: Mapping[str, float] = outputs["metrics"]
        loss, limit = float(metrics["loss"]), threshold(self._losses, self.factor)
        if not math.isfinite(loss):
            return
        if limit is None or loss <= limit:
            self._losses, self._leaps = [*self._losses, loss][-WINDOW:], []
            return
        self._leaps.append(loss)
        if trainer.is_global_zero:
            self._report(outputs, limit)
        if len(self._leaps) == LEAST:
            self._settle(trainer, outputs["step"])

    def _settle(self, trainer: Trainer, step: int) -> None:
        """Take the loss's leaps on end for its level."""
        if trainer.is_global_zero:
            log.warning(
                "warning[LOSS-LEVEL] the loss stayed above its old level (%.4g) for %d steps up to step %d; "
                "later ones are compared with the new level (%.4g)",
                median(self._losses), LEAST, step, median(self._leaps),
            )  # fmt: skip
        self._losses, self._leaps = self._leaps, []

    def _report(self, outputs: Mapping[str, Any], limit: float) -> None:
        step, metrics, ids = outputs["step"], outputs["metrics"], list(outputs["sample_ids"])
        file = self.folder / f"spike-step-{step}.json"
        told = {
            "step": step,
            **{name: metrics[name] for name in ("loss", "grad_norm", "lr")},
            "median": median(self._losses),
            "threshold": limit,
            "sample_ids": ids,
        }
        file.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        shown = ", ".join(ids[:8]) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
        log.warning(
            "warning[LOSS-SPIKE] the loss leapt to %.4g at step %d (median of the %d steps before: %.4g; "
            "samples %s; details in %s)",
            metrics["loss"], step, len(self._losses), told["median"], shown, file,
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """The losses that the next one is compared with."""
        return {"losses": list(self._losses), "leaps": list(self._leaps)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with a checkpoint's."""
        self._losses = [float(value) for value in state_dict["losses"]]
        self._leaps = [float(value) for value in state_dict["leaps"]]


def threshold(losses: Sequence[float], factor: float) -> float | None:
    """The loss above which a step leaps; None: too few steps to tell."""
    if len(losses) < LEAST:
        return None
    middle = median(losses)
    deviation = fmean(abs(value - middle) for value in losses)
    return middle + factor * max(deviation, _FLAT * abs(middle))
