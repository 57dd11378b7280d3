"""Held-out means by hand, and a model that is left as it was found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torchmetrics import MeanMetric

from llmfw.core.batch import Batch, LossOutput
from llmfw.core.errors import DataError
from llmfw.core.records import NamedMetric
from llmfw.core.training.validation import evaluating, validate
from tests.toys.training import TOKENS, Toy, ToyModel, ToyPolicy, batch_of, cross_entropy, split

WHOLE = batch_of(0, 0, rows=6)


def policy(dropout: float = 0.5) -> ToyPolicy:
    return ToyPolicy(Toy(ToyModel(dropout).train()))


def test_the_mean_is_over_units_and_not_over_batches() -> None:
    one, three = (validate(policy(), TOKENS, None, split(WHOLE, parts)) for parts in (1, 3))
    logps = ToyPolicy(Toy(ToyModel().eval())).logps(WHOLE)
    assert one.metrics["loss"] == pytest.approx(-logps.mean().item())
    assert (
        three.metrics["loss"] == pytest.approx(one.metrics["loss"])
        and three.metrics["hits"] == one.metrics["hits"]
    )
    assert one.units == three.units == WHOLE.tokens and one.unit == "tokens"


def test_details_and_sample_ids_lie_in_the_order_of_the_batches() -> None:
    parts = split(WHOLE, 2)
    found = validate(policy(), TOKENS, None, parts)
    eval_policy = ToyPolicy(Toy(ToyModel().eval()))
    expected = torch.cat([eval_policy.logps(part).detach() for part in parts])
    torch.testing.assert_close(found.details["logps"], expected)
    assert found.sample_ids == parts[0].sample_ids + parts[1].sample_ids


def test_dropout_is_off_during_validation_and_every_part_is_back_in_its_mode_after_it() -> None:
    trained = policy()
    trained.module.head.eval()  # a part that was in evaluation mode on purpose
    first, second = (validate(trained, TOKENS, None, [WHOLE]).metrics for _ in range(2))
    assert first == second
    assert trained.module.training and trained.module.drop.training and not trained.module.head.training
    assert trained.module.calls.item() == 0 and torch.is_grad_enabled()


def test_modes_are_put_back_after_an_error() -> None:
    module = ToyModel().train()
    with pytest.raises(ZeroDivisionError), evaluating(module):
        raise ZeroDivisionError
    assert module.drop.training and torch.is_grad_enabled()


def test_named_metrics_run_over_all_batches() -> None:
    metric = NamedMetric(
        name="rows",
        factory=MeanMetric,
        update=lambda state, output, batch: state.update(float(batch.segments)),
    )
    parts = split(WHOLE, 4)  # rows 2, 2, 1, 1
    assert validate(policy(), TOKENS, None, parts, [metric]).metrics["rows"] == pytest.approx(1.5)


def test_a_detail_that_a_batch_lacks_is_left_out() -> None:
    def call(model: Any, batch: Batch, reference: Any) -> LossOutput:
        out = cross_entropy(model, batch, reference)
        return out if batch.segments == 2 else replace(out, details={})

    assert validate(policy(), replace(TOKENS, call=call), None, split(WHOLE, 4)).details == {}


@pytest.mark.parametrize("batches", [[], "no trained token"], ids=str)
def test_nothing_to_validate_is_an_error_and_not_a_nan(batches: Any) -> None:
    if batches:
        none = torch.zeros(0, dtype=torch.int64)
        batches = [replace(WHOLE, source=none, target=none, segment=none, position=none)]
    with pytest.raises(DataError, match="validation"):
        validate(policy(), TOKENS, None, batches)


def test_the_loss_of_each_source_is_the_mean_over_its_own_batches() -> None:
    parts = split(WHOLE, 3)
    names = dict(zip((part.sample_ids for part in parts), ("a", "b", None), strict=True))
    found = validate(policy(), TOKENS, None, parts, source=lambda batch: names[batch.sample_ids]).metrics
    for part, name in zip(parts, ("a", "b", None), strict=True):
        alone = validate(policy(), TOKENS, None, [part]).metrics["loss"]
        assert name is None or found[f"loss/{name}"] == pytest.approx(alone)
    assert [key for key in found if key.startswith("loss")] == ["loss", "loss/a", "loss/b"]
