"""What a few steps do: the gradient's sign, the margin, accumulation. (ln 2 at step 0 shows nothing.)"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from llmfw.core.models import LocalPolicy
from llmfw.losses.preference import preference_loss
from llmfw.testing import plugin_module
from llmfw.testing.pairs import lay_out, random_pairs, tiny_llama

PAIRS = random_pairs([(3, 6, 2), (2, 2, 5), (4, 4, 4)])
LOSSES = {
    "both": {"alpha": 0.5, "beta": 0.3, "ref_mode": "both"},
    "policy_only": {"alpha": 0.5, "beta": 0.3, "ref_mode": "policy_only"},
    "neutral": {"alpha": 1.0, "beta": 0.3},
}


def loss(**settings: Any) -> Any:
    return preference_loss(plugin_module("ld_dpo", "functional").objective(**settings))


@pytest.mark.parametrize("settings", LOSSES.values(), ids=LOSSES)
def test_one_step_down_the_gradient_raises_chosen_and_lowers_rejected(settings: dict[str, Any]) -> None:
    """Sign test: along minus the gradient the scores of chosen rise against those of rejected."""
    policy, reference = (LocalPolicy(tiny_llama(dtype=torch.float64)) for _ in range(2))
    batch, call = lay_out(PAIRS), loss(**settings)
    before = call(policy, batch, reference)
    before.total.backward()
    with torch.no_grad():
        for parameter in policy.module.parameters():
            parameter -= 1e-4 * parameter.grad
    after = call(policy, batch, reference)
    assert after.total < before.total
    assert after.details["weighted_margin"].sum() > before.details["weighted_margin"].sum()


@pytest.mark.parametrize("settings", LOSSES.values(), ids=LOSSES)
def test_twenty_steps_widen_every_margin_and_a_flipped_sign_narrows_them(settings: dict[str, Any]) -> None:
    """The margin starts at exactly 0 whatever the sign of the loss: only its course tells."""
    for sign, widens in ((1.0, True), (-1.0, False)):
        policy, reference = (LocalPolicy(tiny_llama()) for _ in range(2))
        optimizer = torch.optim.Adam(policy.module.parameters(), lr=1e-3)
        batch, call = lay_out(PAIRS), loss(**settings)
        first = call(policy, batch, reference).details
        for _ in range(20):
            optimizer.zero_grad()
            (sign * call(policy, batch, reference).total).backward()
            optimizer.step()
        last = call(policy, batch, reference).details
        assert first["margin"].tolist() == [0.0, 0.0, 0.0]
        change = last["weighted_margin"] - first["weighted_margin"]
        assert bool(change.sum() > 0) == widens
        assert not widens or (last["margin"] > 0).all()


def test_micro_batches_add_up_to_the_whole_batch() -> None:
    """Totals, gradients, and every metric's (sum, count) over 3 pairs equal those over 2 + 1."""
    policy = LocalPolicy(tiny_llama(dtype=torch.float64))
    reference = LocalPolicy(tiny_llama(seed=1, dtype=torch.float64))
    call, parameters = loss(**LOSSES["both"]), list(policy.module.parameters())
    whole = call(policy, lay_out(PAIRS), reference)
    parts = [call(policy, lay_out(part), reference) for part in (PAIRS[:2], PAIRS[2:])]
    torch.testing.assert_close(sum(part.total for part in parts), whole.total, rtol=0, atol=1e-11)
    want = torch.autograd.grad(whole.total, parameters)
    got = torch.autograd.grad(sum(part.total for part in parts), parameters)
    for ours, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    assert {name for part in parts for name in part.metrics} == set(whole.metrics)
    for name, (total, count) in whole.metrics.items():
        assert sum(float(part.metrics[name][0]) for part in parts) == pytest.approx(float(total), abs=1e-9), (
            name
        )
        assert sum(float(part.metrics[name][1]) for part in parts) == float(count), name


def test_training_moves_the_policy_and_leaves_the_reference() -> None:
    policy, reference = (LocalPolicy(tiny_llama()) for _ in range(2))
    before = copy.deepcopy(reference.module.state_dict())
    optimizer = torch.optim.SGD(policy.module.parameters(), lr=0.1)
    loss(**LOSSES["both"])(policy, lay_out(PAIRS), reference).total.backward()
    optimizer.step()
    assert all(torch.equal(before[name], value) for name, value in reference.module.state_dict().items())
    assert any(not torch.equal(before[name], value) for name, value in policy.module.state_dict().items())
