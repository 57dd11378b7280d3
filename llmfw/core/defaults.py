"""The core's own answers to hooks, given as a plugin: any plugin that answers a singular hook takes its
place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llmfw.core.hookspecs import hookimpl
from llmfw.core.plugin import Plugin
from llmfw.core.records import Loss

if TYPE_CHECKING:
    from llmfw.core.batch import Batch, LossOutput
    from llmfw.core.records import Evaluation, Policy
    from llmfw.core.run import Run


class Defaults(Plugin):
    """Supervised training on the rows that ``data`` names.

    The held-out loss, checkpoints, progress and throughput need no record here: the training loop always has
    them.
    """

    @hookimpl
    def llmfw_datamodule(self, run: Run, tokenizer: Any) -> Any:
        from llmfw.core.data import ConfiguredData

        return ConfiguredData(run.config.data, tokenizer)

    @hookimpl
    def llmfw_loss(self, run: Run, tokenizer: Any, model_config: Any) -> Loss:
        return Loss(name="causal_lm", call=causal_lm, batch_kind="text", unit="tokens")

    @hookimpl
    def llmfw_evaluations(self, run: Run) -> Sequence[Evaluation]:
        from llmfw.core.evaluation.own import evaluations

        return evaluations(run)

    @hookimpl
    def llmfw_callbacks(self, run: Run) -> Sequence[Any]:
        return []


def causal_lm(policy: Policy, batch: Batch, reference: Policy | None) -> LossOutput:
    """Cross entropy of the trained tokens, summed, in nats."""
    from llmfw.core.batch import LossOutput
    from llmfw.losses.causal_lm import cross_entropy

    return LossOutput(total=cross_entropy(policy.logps(batch)).sum())
