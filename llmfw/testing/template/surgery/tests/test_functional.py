"""The gate against the slow oracle, in value and gradient."""

from __future__ import annotations

import math

import pytest
import torch

from llmfw.testing import plugin_module

functional = plugin_module("my_method", "functional")
reference = plugin_module("my_method", "reference")


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 5), (1, 7, 2)])
@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_functional_equals_the_oracle_in_value_and_gradient(shape: tuple[int, ...], scale: float) -> None:
    draw = torch.Generator().manual_seed(0)
    states = torch.randn(shape, generator=draw, dtype=torch.float64, requires_grad=True)
    gate = torch.randn(1, generator=draw, dtype=torch.float64, requires_grad=True)
    got, want = (module.gated(states, gate, scale=scale) for module in (functional, reference))
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    ours, theirs = (torch.autograd.grad(value.square().sum(), (states, gate)) for value in (got, want))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


def test_float64_gradcheck() -> None:
    inputs = [torch.randn(size, dtype=torch.float64, requires_grad=True) for size in ((1, 2, 3), (1,))]
    assert torch.autograd.gradcheck(lambda states, gate: functional.gated(states, gate, scale=0.7), inputs)


def test_a_gate_by_hand() -> None:
    """tanh(ln 3 / 2) is 1/2: at scale 1 a gate of that much makes 2 into 3."""
    gate = torch.tensor([math.log(3) / 2], dtype=torch.float64)
    assert functional.gated(torch.tensor([[[2.0]]]).double(), gate, scale=1.0).item() == pytest.approx(3.0)


def test_a_gate_of_zero_changes_no_bit() -> None:
    states = torch.randn(2, 3, 4)
    assert torch.equal(functional.gated(states, torch.zeros(1), scale=1.0), states)
