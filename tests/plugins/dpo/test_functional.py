"""functional.py against the slow oracle, in value and gradient, for every loss that ``dpo.loss`` names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from llmfw.core.errors import UsageError
from llmfw.testing import plugin_module
from llmfw.testing.pairs import lay_out, random_pairs

functional = plugin_module("dpo", "functional")
reference = plugin_module("dpo", "reference")
SETTINGS: dict[str, dict[str, float]] = {
    "sigmoid": {"beta": 0.7},
    "ipo": {"beta": 0.7},
    "r_dpo": {"beta": 0.7, "bonus": 0.2},
    "simpo": {"beta": 2.0, "gamma": 0.5},
    "sampo": {"beta": 0.7},
}
SHAPES = [[(1, 1, 1)], [(2, 5, 3)], [(2, 3, 5), (1, 4, 4), (3, 1, 9)], [(1, 0, 3), (1, 2, 0)]]


def case(lengths: list[tuple[int, int, int]], name: str) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    batch = lay_out(random_pairs(lengths))
    draw = torch.Generator().manual_seed(0)
    policy, ref = -3 * torch.rand(2, batch.tokens, generator=draw, dtype=torch.float64)
    position = functional.objective(name, **SETTINGS[name]).positions(batch)
    return (
        policy.requires_grad_(),
        ref,
        {"segment": batch.segment, "position": position, "length": batch.length},
    )


@pytest.mark.parametrize("lengths", SHAPES)
@pytest.mark.parametrize("name", SETTINGS)
def test_functional_equals_the_oracle_in_value_and_gradient(
    lengths: list[tuple[int, int, int]], name: str
) -> None:
    policy, ref, where = case(lengths, name)
    got = functional.loss(policy, ref, **where, name=name, **SETTINGS[name])
    want = reference.loss(policy, ref, **where, name=name, **SETTINGS[name])
    assert got.shape == (len(lengths),)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    ours, theirs = (torch.autograd.grad(value.sum(), policy, allow_unused=True)[0] for value in (got, want))
    torch.testing.assert_close(ours, torch.zeros_like(ours) if theirs is None else theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SETTINGS)
def test_float64_gradcheck(name: str) -> None:
    policy, ref, where = case(SHAPES[2], name)
    assert torch.autograd.gradcheck(
        lambda q: functional.loss(q, ref, **where, name=name, **SETTINGS[name]), (policy,)
    )


@pytest.mark.parametrize("name", sorted(set(SETTINGS) - {"ipo"}))
def test_each_loss_prefers_chosen(name: str) -> None:
    """Raising a counted chosen token's log-prob lowers the loss, raising a rejected one's raises it."""
    policy, ref, where = case([(2, 5, 3)], name)
    (gradient,) = torch.autograd.grad(
        functional.loss(policy, ref, **where, name=name, **SETTINGS[name]).sum(), policy
    )
    chosen = where["segment"] == 0
    assert (gradient[chosen] <= 0).all() and (gradient[~chosen] >= 0).all()
    assert gradient[chosen].sum() < 0 < gradient[~chosen].sum()


def test_ipo_pulls_the_margin_back_once_it_is_wider_than_its_target() -> None:
    """Target 1 / (2 beta) = 1 nat per token: below it chosen is pushed up, above it down."""
    batch = lay_out(random_pairs([(1, 1, 1)]))
    where = {"segment": batch.segment, "position": batch.position, "length": batch.length}
    for margin, sign in ((0.5, -1.0), (1.5, 1.0)):
        policy = torch.tensor([-1.0 + margin, -1.0], requires_grad=True)
        loss = functional.loss(policy, torch.tensor([-1.0, -1.0]), **where, name="ipo", beta=0.5)
        (gradient,) = torch.autograd.grad(loss.sum(), policy)
        assert gradient.tolist() == [sign, -sign]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"name": "hinge", "beta": 0.1}, "loss is 'hinge'"), ({"name": "sigmoid", "beta": 0.0}, "beta is 0")],
)
def test_settings_outside_their_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        functional.objective(**arguments)
