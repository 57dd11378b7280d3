"""A model that is ready to answer or to be measured, outside training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmfw.core.assemble import Assembled
from llmfw.core.auxiliary import open_auxiliary
from llmfw.core.measure import Measured, measure
from llmfw.core.models import build_model, reference_of
from llmfw.core.policies import policy_over, surgeries_of

if TYPE_CHECKING:
    from llmfw.core.generation import GeneratingPolicy
    from llmfw.core.plan import Plan
    from llmfw.core.run import Run


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A frozen model with the run's sampling settings, cache and decoder."""

    policy: GeneratingPolicy
    built: Any
    assembled: Assembled

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self.assembled.tokenizer

    @property
    def run(self) -> Run:
        """What hooks were given."""
        return self.assembled.run

    @property
    def plan(self) -> Plan:
        """The plan behind it."""
        return self.assembled.plan


def open_policy(assembled: Assembled) -> Opened:
    """Build the model that ``model.name`` means, frozen, in evaluation mode."""
    root = assembled.run.config
    built = build_model(
        assembled.settled.source,
        root.adapter,
        surgeries_of(assembled),
        root.seed,
        train=False,
        tokenizer=assembled.tokenizer,
    )
    assembled.run._provide(open_policy=lambda name: open_auxiliary(assembled, name))
    return Opened(policy=policy_over(assembled, built), built=built, assembled=assembled)


def validate_policy(opened: Opened) -> Mapping[str, float]:
    """The plan's loss on its held-out rows, and its metrics; empty where nothing is held out."""
    from llmfw.core.data import collate_with, prepare, validation_batches
    from llmfw.core.training.validation import validate

    assembled = opened.assembled
    root, plan = assembled.run.config, assembled.plan
    transforms = [(answer.plugin, answer.value) for answer in plan.answers["llmfw_dataset_transforms"]]
    prepared = prepare(root, assembled.tokenizer, transforms, plan.one("llmfw_datamodule"))
    assembled.run._provide(rows=prepared.rows)
    loss = plan.one("llmfw_loss")
    pad = assembled.tokenizer.pad_token_id
    batches = validation_batches(
        prepared.validation,
        collate_with(pad),
        micro_batch=root.trainer.micro_batch,
        limit=root.trainer.validation_limit,
        pad_id=pad,
    )
    found: Mapping[str, float] = {}
    if batches:
        reference = reference_of(opened.built, root.trainer.reference) if loss.needs_reference else None
        found = validate(
            opened.policy, loss, reference, batches, plan.many("llmfw_metrics/validation")
        ).metrics
    return found


def evaluate_policy(opened: Opened) -> tuple[Mapping[str, float], Measured]:
    """(held-out loss and its metrics, the plugins' evaluations)."""
    found = validate_policy(opened)
    return found, measure(opened.plan, opened.run, opened.policy, None)
