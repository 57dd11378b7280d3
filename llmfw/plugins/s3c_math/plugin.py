"""Spontaneous step-level self-correction (arXiv 2409.01524): wiring only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmfw import Evaluation, Loss, Plugin, RolloutSampler, hookimpl
from llmfw.callbacks.problems import solved

from .settings import Settings


class S3cMath(Plugin):
    """Solutions in which wrong steps are taken back and done right; the wrong steps themselves are masked."""

    @dataclass
    class Config(Settings):
        """Settings ``s3c_math.*``."""

    config: Config

    @hookimpl
    def llmfw_sampler(self, run: Any) -> RolloutSampler:
        """Fold models, then the mix."""
        from .sampler import corrections

        return RolloutSampler(name="s3c_math", next=corrections(self.config, run))

    @hookimpl
    def llmfw_loss(self, run: Any, tokenizer: Any, model_config: Any) -> Loss | None:
        """The core's cross entropy; a mean over sequences where that is asked for."""
        if self.config.reduction == "tokens":
            return None
        from .loss import by_sequence

        return Loss(name="s3c_math.sequences", call=by_sequence, batch_kind="text", unit="sequences")

    @hookimpl
    def llmfw_evaluations(self, run: Any) -> Sequence[Evaluation]:
        """Held-out problems solved; forced errors recovered, right steps left alone."""
        from .measure import corrects

        return [*solved(self.config, run), *corrects(self.config, run)]
