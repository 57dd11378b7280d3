"""A model that is ready to answer or to be measured, outside training."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmfw.core.assemble import Assembled
from llmfw.core.auxiliary import open_auxiliary
from llmfw.core.errors import DataError
from llmfw.core.measure import Measured, measure
from llmfw.core.models import build_model, reference_of
from llmfw.core.policies import policy_over, surgeries_of

if TYPE_CHECKING:
    from llmfw.core.data import Prepared
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


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What was measured of a model, and where it's kept (None: nowhere)."""

    validation: Mapping[str, float]
    """The held-out loss and its metrics; empty where nothing is held out."""
    measured: Measured
    kept: Path | None = None


def prepare_rows(assembled: Assembled) -> Prepared | None:
    """The rows on which a model is measured, known to the run from here on; None where none are asked for.

    Raises:
        DataError: rows that can't be used. No weight is read before.
    """
    from llmfw.core.data import prepare

    prepared = None
    if assembled.named_data:
        source = assembled.plan.one("llmfw_datamodule")
        prepared = prepare(
            assembled.run.config, assembled.tokenizer, assembled.transforms, source, assembled.sides
        )
        assembled.run._provide(rows=prepared.rows, held_out=prepared.validation)
    return prepared


def validate_policy(opened: Opened, prepared: Prepared | None) -> Mapping[str, float]:
    """The plan's loss on its held-out rows, and its metrics; empty where nothing is held out."""
    from llmfw.core.data import source_of, validation_batches
    from llmfw.core.training.layout import Layer, layouts_of, settle
    from llmfw.core.training.validation import validate

    if prepared is None:
        return {}
    assembled = opened.assembled
    root, plan = assembled.run.config, assembled.plan
    loss = plan.one("llmfw_loss")
    pad = assembled.tokenizer.pad_token_id
    layer = Layer(pad)
    layouts = layouts_of(plan, root, assembled.model_config)
    settle(layouts, opened.policy, prepared.validation, layer, prepared.max_length)
    batches = validation_batches(
        prepared.validation,
        layer,
        micro_batch=root.trainer.micro_batch,
        limit=root.trainer.validation_limit,
        pad_id=pad,
    )
    if not batches:
        return {}
    reference = reference_of(opened.built, root.trainer.reference) if loss.needs_reference else None
    metrics = plan.many("llmfw_metrics/validation")
    source = source_of(prepared.validation)
    return validate(opened.policy, loss, reference, batches, metrics, source=source).metrics


def validate_model(assembled: Assembled) -> Mapping[str, float]:
    """The held-out loss of ``model.name`` and its metrics."""
    prepared = prepare_rows(assembled)
    return validate_policy(open_policy(assembled), prepared)


def evaluate_model(assembled: Assembled, *, save: bool) -> Evaluated:
    """Measure ``model.name``: the held-out loss, and every evaluation of the plan; ``save``: keep it
    (``llmfw.core.evaluation.keep``).

    Raises:
        DataError: NOTHING-TO-EVALUATE, where there's nothing to measure it by.
        UsageError, ResourceError: what an evaluation needs isn't there. No weight is read before.
    """
    from llmfw.core.evaluation.keep import keeping
    from llmfw.core.evaluation.own import check_evaluations

    prepared = prepare_rows(assembled)
    check_evaluations(assembled.run)
    held_out = prepared is not None and bool(prepared.validation)
    if not held_out and not assembled.plan.answers["llmfw_evaluations"]:
        raise DataError(
            "NOTHING-TO-EVALUATE",
            "no rows are held out, and no plugin measures anything",
            mend="set data.validation or evaluation.lm_eval, or switch on a plugin with evaluations",
        )
    opened = open_policy(assembled)
    rows = None if prepared is None else prepared.rows["validation"]
    with keeping(assembled, rows) if save else nullcontext() as keep:
        found = validate_policy(opened, prepared)
        measured = measure(opened.plan, opened.run, opened.policy, None)
        kept = keep(found, measured) if keep is not None else None
    return Evaluated(validation=found, measured=measured, kept=kept)
