"""functional.py against the slow oracle, in value and gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from llmfw.core.errors import UsageError
from llmfw.testing import plugin_module
from llmfw.testing.pairs import lay_out, random_pairs

functional = plugin_module("ld_dpo", "functional")
reference = plugin_module("ld_dpo", "reference")
SHAPES = [[(1, 1, 1)], [(2, 5, 3)], [(2, 3, 5), (1, 4, 4), (3, 1, 9)], [(1, 0, 3), (1, 2, 0)]]


def case(lengths: list[tuple[int, int, int]], seed: int = 0) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    batch = lay_out(random_pairs(lengths))
    draw = torch.Generator().manual_seed(seed)
    policy, ref = -3 * torch.rand(2, batch.tokens, generator=draw, dtype=torch.float64)
    where = {"segment": batch.segment, "position": batch.position, "length": batch.length}
    return policy.requires_grad_(), ref, where


@pytest.mark.parametrize("lengths", SHAPES)
@pytest.mark.parametrize("mode", ["both", "policy_only"])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_functional_equals_the_oracle_in_value_and_gradient(
    lengths: list[tuple[int, int, int]], mode: str, alpha: float
) -> None:
    policy, ref, where = case(lengths)
    settings: dict[str, Any] = {"alpha": alpha, "beta": 0.7, "ref_mode": mode}
    got = functional.loss(policy, ref, **where, **settings)
    want = reference.loss(policy, ref, **where, **settings)
    assert got.shape == (len(lengths),)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    signal = torch.linspace(1.0, 2.0, len(lengths), dtype=torch.float64)
    ours, theirs = (torch.autograd.grad(value, policy, signal)[0] for value in (got, want))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mode", ["both", "policy_only"])
def test_float64_gradcheck(mode: str) -> None:
    policy, ref, where = case(SHAPES[2])
    assert torch.autograd.gradcheck(
        lambda q: functional.loss(q, ref, **where, alpha=0.3, beta=0.7, ref_mode=mode), (policy,)
    )


def test_two_answers_by_hand() -> None:
    """Chosen -1 -2 -4, rejected -3, alpha 1/4, reference 0: R is -2.5 and -3, margin 2 * 0.5 = 1."""
    batch = lay_out(random_pairs([(1, 3, 1)]))
    got = functional.loss(
        torch.tensor([-1.0, -2.0, -4.0, -3.0]), torch.zeros(4),
        segment=batch.segment, position=batch.position, length=batch.length, alpha=0.25, beta=2.0,
    )  # fmt: skip
    torch.testing.assert_close(got, torch.nn.functional.softplus(torch.tensor([-1.0])))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"alpha": -0.1}, "alpha is -0.1"),
        ({"alpha": 1.5}, "alpha is 1.5"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"beta": 0.0}, "beta is 0"),
        ({"ref_mode": "neither"}, "ref_mode is 'neither'"),
    ],
)
def test_settings_outside_their_range_are_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        functional.objective(**({"alpha": 0.5, "beta": 0.1} | setting))
    assert caught.value.exit_code == 2
