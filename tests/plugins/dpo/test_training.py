"""What a few steps do, for every loss: the gradient's sign, the margin, accumulation."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from llmfw.core.models import LocalPolicy
from llmfw.losses.preference import preference_loss
from llmfw.testing import plugin_module
from llmfw.testing.pairs import lay_out, random_pairs, tiny_llama

PAIRS = random_pairs([(3, 6, 2), (2, 2, 5), (4, 4, 4)])
LOSSES = ("sigmoid", "ipo", "r_dpo", "simpo", "sampo")


def loss(name: str) -> Any:
    return preference_loss(plugin_module("dpo", "functional").objective(name, beta=0.3))


@pytest.mark.parametrize("name", LOSSES)
def test_twenty_steps_widen_every_margin_and_a_flipped_sign_narrows_them(name: str) -> None:
    for sign, widens in ((1.0, True), (-1.0, False)):
        policy, reference = (LocalPolicy(tiny_llama()) for _ in range(2))
        optimizer = torch.optim.Adam(policy.module.parameters(), lr=1e-3)
        batch, call = lay_out(PAIRS), loss(name)
        first = call(policy, batch, reference).details["margin"]
        for _ in range(20):
            optimizer.zero_grad()
            (sign * call(policy, batch, reference).total).backward()
            optimizer.step()
        change = call(policy, batch, reference).details["margin"] - first
        assert bool(change.sum() > 0) == widens


@pytest.mark.parametrize("name", LOSSES)
def test_micro_batches_add_up_to_the_whole_batch(name: str) -> None:
    policy = LocalPolicy(tiny_llama(dtype=torch.float64))
    reference = LocalPolicy(tiny_llama(seed=1, dtype=torch.float64))
    call, parameters = loss(name), list(policy.module.parameters())
    whole = call(policy, lay_out(PAIRS), reference)
    parts = [call(policy, lay_out(part), reference) for part in (PAIRS[:1], PAIRS[1:])]
    torch.testing.assert_close(sum(part.total for part in parts), whole.total, rtol=0, atol=1e-11)
    want = torch.autograd.grad(whole.total, parameters)
    got = torch.autograd.grad(sum(part.total for part in parts), parameters)
    for ours, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    for metric, (total, count) in whole.metrics.items():
        assert sum(float(part.metrics[metric][0]) for part in parts) == pytest.approx(float(total), abs=1e-9)
        assert sum(float(part.metrics[metric][1]) for part in parts) == float(count)


def test_the_reference_is_the_policy_at_the_start_so_every_pair_costs_ln_2() -> None:
    policy, reference = (LocalPolicy(tiny_llama(dtype=torch.float64)) for _ in range(2))
    out = loss("sigmoid")(policy, lay_out(PAIRS), reference)
    assert out.total.item() == pytest.approx(3 * 0.6931471805599453, abs=1e-15)
