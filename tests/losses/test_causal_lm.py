"""The default loss."""

from __future__ import annotations

import torch

from llmfw.losses.causal_lm import cross_entropy


def test_cross_entropy_is_minus_the_sum_of_the_logps() -> None:
    """-(-0.5 - 2.25) = 2.75, and each log-prob's derivative is -1."""
    logps = torch.tensor([-0.5, -2.25], requires_grad=True)
    total = cross_entropy(logps)
    total.backward()
    assert total.item() == 2.75
    assert logps.grad is not None and logps.grad.tolist() == [-1.0, -1.0]


def test_no_token_costs_nothing() -> None:
    assert cross_entropy(torch.zeros(0)).item() == 0.0
