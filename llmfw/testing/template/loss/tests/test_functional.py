"""functional.py against the slow oracle, in value and gradient, and against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from llmfw import LlmfwError
from llmfw.testing import plugin_module
from llmfw.testing.pairs import lay_out, random_pairs

functional = plugin_module("my_method", "functional")
reference = plugin_module("my_method", "reference")
SHAPES = [[(1, 1, 1)], [(2, 5, 3)], [(2, 3, 5), (1, 4, 4), (3, 1, 9)], [(1, 0, 3), (1, 2, 0)]]


def case(lengths: list[tuple[int, int, int]]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Log-probs of policy and reference for pairs of these (prompt, chosen, rejected) lengths."""
    batch = lay_out(random_pairs(lengths))
    draw = torch.Generator().manual_seed(0)
    policy, ref = -3 * torch.rand(2, batch.tokens, generator=draw, dtype=torch.float64)
    where = {"segment": batch.segment, "position": batch.position, "length": batch.length}
    return policy.requires_grad_(), ref, where


@pytest.mark.parametrize("lengths", SHAPES)
@pytest.mark.parametrize("flipped", [0.0, 0.1, 0.5])
def test_functional_equals_the_oracle_in_value_and_gradient(
    lengths: list[tuple[int, int, int]], flipped: float
) -> None:
    policy, ref, where = case(lengths)
    got = functional.loss(policy, ref, **where, beta=0.7, flipped=flipped)
    want = reference.loss(policy, ref, **where, beta=0.7, flipped=flipped)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    ours, theirs = (torch.autograd.grad(value.sum(), policy)[0] for value in (got, want))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_float64_gradcheck() -> None:
    policy, ref, where = case(SHAPES[2])
    assert torch.autograd.gradcheck(lambda q: functional.loss(q, ref, **where, flipped=0.2), (policy,))


def test_a_pair_by_hand() -> None:
    """Rewards differ by ln 3, so sigmoid is 3/4 and 1/4: 0.9 ln(4/3) + 0.1 ln 4."""
    difference = torch.tensor([math.log(3)], dtype=torch.float64)
    loss = functional.link(difference, torch.zeros(1), beta=1.0, flipped=0.1)
    assert loss.item() == pytest.approx(0.9 * math.log(4 / 3) + 0.1 * math.log(4), abs=1e-12)


def test_the_loss_is_smallest_at_a_finite_margin() -> None:
    """At log((1 - e) / e) the gradient is 0; e = 0.2: log 4."""
    difference = torch.tensor([math.log(4)], dtype=torch.float64, requires_grad=True)
    functional.link(difference, torch.zeros(1), beta=1.0, flipped=0.2).backward()
    assert difference.grad is not None and abs(difference.grad.item()) < 1e-12


@pytest.mark.parametrize("wrong", [{"flipped": 0.6}, {"flipped": -0.1}, {"beta": 0.0}])
def test_settings_outside_their_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(LlmfwError):
        functional.objective(**wrong)
