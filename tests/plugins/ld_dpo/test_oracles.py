"""The nine oracles of the method's specification, by number, and the control that oracle 1 must catch.

Model tests run a real two-layer Llama; table tests give the log-probs directly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from llmfw.core.batch import Batch, LossOutput
from llmfw.core.models import LocalPolicy
from llmfw.losses import preference
from llmfw.losses.preference import Objective, preference_loss
from llmfw.testing import plugin_module
from llmfw.testing.pairs import Layout, Pair, lay_out, random_pairs, tiny_llama

functional = plugin_module("ld_dpo", "functional")
BETA = 0.3
ALPHAS = (0.0, 0.25, 0.5, 1.0)
MODES = ("both", "policy_only")
LENGTHS = [(3, 6, 2), (1, 2, 7), (5, 4, 4)]
"""(prompt, chosen, rejected): chosen longer, rejected longer, equal."""


class Table:
    """A policy whose log-probs are given: one number per position of the batch's rows."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def logps(self, batch: Batch) -> Tensor:
        return self.values.flatten()[batch.source]


def table(batch: Batch, seed: int, dtype: torch.dtype = torch.float64) -> Table:
    draw = torch.Generator().manual_seed(seed)
    return Table(-torch.rand(batch.input_ids.shape, generator=draw, dtype=torch.float64).to(dtype))


def run(objective: Objective, policy: Any, batch: Batch, reference: Any) -> LossOutput:
    return preference_loss(objective)(policy, batch, reference)


def ld(alpha: float, mode: str = "both", beta: float = BETA) -> Objective:
    objective: Objective = functional.objective(alpha=alpha, beta=beta, ref_mode=mode)
    return objective


def loss_and_gradients(
    objective: Objective,
    pairs: Sequence[Pair],
    layout: Layout = "right",
    dtype: torch.dtype = torch.float32,
    **how: Any,
) -> tuple[Tensor, list[Tensor]]:
    policy = LocalPolicy(tiny_llama(seed=0, dtype=dtype))
    reference = LocalPolicy(tiny_llama(seed=1, dtype=dtype))
    total = run(objective, policy, lay_out(pairs, layout, **how), reference).total
    return total.detach(), list(torch.autograd.grad(total, list(policy.module.parameters())))


def is_plain_dpo_to_the_bit(objective: Objective, pairs: Sequence[Pair]) -> bool:
    total, gradients = loss_and_gradients(objective, pairs)
    want_total, want_gradients = loss_and_gradients(preference.dpo(beta=BETA), pairs)
    return torch.equal(total, want_total) and all(map(torch.equal, gradients, want_gradients))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("prompt", [1, 2, 9])
def test_oracle_1_alpha_one_is_plain_dpo_bit_for_bit(mode: str, prompt: int) -> None:
    pairs = random_pairs([(prompt, chosen, rejected) for _, chosen, rejected in LENGTHS])
    assert is_plain_dpo_to_the_bit(ld(1.0, mode), pairs)
    assert not is_plain_dpo_to_the_bit(ld(0.5, mode), pairs), (
        "the comparison sees a difference where there is one"
    )


@pytest.mark.parametrize("prompt", [1, 2, 9])
def test_control_the_masking_of_trl_0_18_fails_oracle_1(prompt: int) -> None:
    """It compared the column in prompt + answer with the answer's length, and dropped columns beyond it."""
    pairs = random_pairs([(prompt, chosen, rejected) for _, chosen, rejected in LENGTHS])
    assert not is_plain_dpo_to_the_bit(old_masking(1.0, prompt), pairs)


def test_control_the_masking_of_trl_0_18_keeps_four_of_six_tokens_after_a_prompt_of_two() -> None:
    """Prompt 2, answer 6: columns 3 to 6 of 8 are kept. A prompt as long as the answer keeps none of it."""
    position, length = torch.arange(1, 7), torch.full((6,), 6)
    assert old_masking(1.0, 2).weights(position + 2, length, length).tolist() == [1, 1, 1, 1, 0, 0]
    assert old_masking(1.0, 6).weights(position + 6, length, length).sum() == 0


def old_masking(alpha: float, prompt: int) -> Objective:
    def weights(column: Tensor, length: Tensor, partner_length: Tensor) -> Tensor:
        kept = preference.choose(column <= length, 1.0, 0.0)
        return kept * preference.choose(column <= torch.minimum(length, partner_length), 1.0, alpha)

    return replace(
        preference.dpo(beta=BETA),
        weights=weights,
        reference_weights=preference.every_token,
        positions=lambda batch: batch.position + prompt,
    )


def test_oracle_2_alpha_zero_is_dpo_on_answers_cut_to_the_public_length() -> None:
    """A causal model's log-probs of a prefix don't depend on what was cut off."""
    pairs = random_pairs(LENGTHS)
    total, gradients = loss_and_gradients(ld(0.0), pairs)
    want, want_gradients = loss_and_gradients(preference.dpo(beta=BETA), [pair.cut for pair in pairs])
    torch.testing.assert_close(total, want, rtol=1e-6, atol=1e-6)
    for ours, theirs in zip(gradients, want_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_oracle_3_the_margin_is_affine_in_alpha() -> None:
    batch = lay_out(random_pairs(LENGTHS))
    policy, reference = table(batch, 0), table(batch, 1)
    margin = {
        a: run(ld(a), policy, batch, reference).details["weighted_margin"] for a in (0.0, 0.3, 0.77, 1.0)
    }
    for alpha in (0.3, 0.77):
        want = (1 - alpha) * margin[0.0] + alpha * margin[1.0]
        torch.testing.assert_close(margin[alpha], want, rtol=0, atol=1e-12)
    assert not torch.allclose(margin[0.0], margin[1.0])


@pytest.mark.parametrize("mode", MODES)
def test_oracle_4_equal_lengths_make_alpha_irrelevant(mode: str) -> None:
    batch = lay_out(random_pairs([(3, 5, 5), (1, 2, 2)]))
    policy, reference = table(batch, 0), table(batch, 1)
    totals = {run(ld(alpha, mode), policy, batch, reference).total.item() for alpha in ALPHAS}
    assert len(totals) == 1


@pytest.mark.parametrize("alpha", ALPHAS)
def test_oracle_5_a_policy_that_is_its_reference_loses_ln_2_when_both_are_weighted(alpha: float) -> None:
    for lengths in LENGTHS:
        batch = lay_out(random_pairs([lengths]))
        same = table(batch, 0)
        assert run(ld(alpha), same, batch, same).total.item() == math.log(2)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_oracle_5_with_policy_only_it_loses_the_softplus_of_the_tails_offset(alpha: float) -> None:
    """offset = -beta (1 - alpha) (T_ref(chosen) - T_ref(rejected)), T the tail beyond the public length."""
    for lengths in LENGTHS:
        batch = lay_out(random_pairs([lengths]))
        same = table(batch, 0)
        shared = min(lengths[1:])
        tail = torch.where(batch.position > shared, same.logps(batch), 0.0)
        t_chosen, t_rejected = (tail[batch.segment == side].sum().item() for side in (0, 1))
        offset = -BETA * (1 - alpha) * (t_chosen - t_rejected)
        got = run(ld(alpha, "policy_only"), same, batch, same).total.item()
        assert got == pytest.approx(math.log1p(math.exp(-offset)), abs=1e-12)
        assert (got == math.log(2)) == (alpha == 1.0 or lengths[1] == lengths[2])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_oracle_6_swapping_chosen_and_rejected_negates_the_margin(alpha: float, mode: str) -> None:
    pairs = random_pairs(LENGTHS)
    policy, reference = (LocalPolicy(tiny_llama(seed=seed, dtype=torch.float64)) for seed in (0, 1))
    one = run(ld(alpha, mode), policy, lay_out(pairs), reference).details
    other = run(ld(alpha, mode), policy, lay_out([pair.swapped for pair in pairs]), reference).details
    for name in ("margin", "weighted_margin", "length_gap"):
        torch.testing.assert_close(other[name], -one[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_oracle_7_gradient_mass_per_side_and_none_on_prompt_and_padding(alpha: float) -> None:
    """sum over tokens |dL/dq| = beta sigmoid(-m) (l + alpha (n - l)); chosen pushed up, rejected down."""
    pairs = random_pairs(LENGTHS)
    batch = lay_out(pairs, extra_columns=2)
    policy, reference = table(batch, 0), table(batch, 1)
    policy.values.requires_grad_()
    out = run(ld(alpha), policy, batch, reference)
    (gradient,) = torch.autograd.grad(out.total, policy.values)
    pull = BETA * torch.sigmoid(-out.details["weighted_margin"])
    for row in range(2 * len(pairs)):
        pair, sign = row % len(pairs), 1 if row < len(pairs) else -1
        own, shared = int(batch.length[row]), min(LENGTHS[pair][1:])
        mass = pull[pair].item() * (shared + alpha * (own - shared))
        assert gradient[row].abs().sum().item() == pytest.approx(mass, abs=1e-12)
        assert (gradient[row] * sign <= 0).all()
    untrained = torch.ones(policy.values.numel(), dtype=torch.bool)
    untrained[batch.source] = False
    assert untrained.sum() > 0 and not gradient.flatten()[untrained].any()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("layout", "how"),
    [
        ("left", {}),
        ("right", {"extra_columns": 5}),
        ("right", {"pad_id": 7}),
        ("left", {"extra_columns": 3}),
        ("packed", {}),
        ("packed", {"extra_columns": 2}),
        ("shared_prompt", {}),
    ],
)
def test_oracle_8_layout_and_padding_change_nothing(layout: Layout, how: dict[str, int], mode: str) -> None:
    pairs = random_pairs(LENGTHS)
    want, want_gradients = loss_and_gradients(ld(0.4, mode), pairs, dtype=torch.float64)
    got, gradients = loss_and_gradients(ld(0.4, mode), pairs, layout, dtype=torch.float64, **how)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-11)
    for ours, theirs in zip(gradients, want_gradients, strict=True):
        # Llama's norms compute in float32 even in a float64 model: sums in another order round otherwise
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_oracle_8_the_order_of_pairs_changes_nothing() -> None:
    pairs = random_pairs(LENGTHS)
    policy, reference = (LocalPolicy(tiny_llama(seed=seed, dtype=torch.float64)) for seed in (0, 1))
    want = run(ld(0.4), policy, lay_out(pairs), reference).details["weighted_margin"]
    for order in ([2, 0, 1], [1, 2, 0]):
        batch = lay_out([pairs[i] for i in order])
        got = run(ld(0.4), policy, batch, reference).details["weighted_margin"]
        torch.testing.assert_close(got, want[order], rtol=0, atol=1e-11)
    alone = torch.cat(
        [run(ld(0.4), policy, lay_out([q]), reference).details["weighted_margin"] for q in pairs]
    )
    torch.testing.assert_close(alone, want, rtol=0, atol=1e-11)


def test_oracle_8_the_prompts_length_changes_no_weight() -> None:
    short, long = (lay_out(random_pairs([(prompt, 6, 2)])) for prompt in (1, 50))
    weights = [
        functional.weights(
            b.position, b.length[b.segment], preference.partner(b.length)[b.segment], alpha=0.4
        )
        for b in (short, long)
    ]
    assert torch.equal(*weights)


@pytest.mark.parametrize("mode", MODES)
def test_oracle_8_a_cached_reference_equals_a_live_one_at_every_alpha(mode: str) -> None:
    """The cache holds log-probs per token, so one serves all settings."""
    policy, reference = (LocalPolicy(tiny_llama(seed=seed)) for seed in (0, 1))
    batch = lay_out(random_pairs(LENGTHS))
    cached = replace(batch, reference_logps=reference.logps(batch).detach())
    for alpha in ALPHAS:
        live = run(ld(alpha, mode), policy, batch, reference).total
        assert torch.equal(run(ld(alpha, mode), policy, cached, None).total, live)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_oracle_9_weights_add_up_to_public_length_plus_alpha_times_tail(alpha: float) -> None:
    for _, n, m in [*LENGTHS, (1, 0, 4), (1, 4, 0), (1, 0, 0)]:
        for own, other in ((n, m), (m, n)):
            position = torch.arange(1, own + 1)
            weights = functional.weights(
                position, torch.full_like(position, own), torch.full_like(position, other), alpha=alpha
            )
            shared = min(own, other)
            assert weights.sum().item() == pytest.approx(shared + alpha * (own - shared), abs=1e-12)


@pytest.mark.parametrize("lengths", [(2, 0, 4), (2, 4, 0), (2, 0, 0)])
def test_oracle_9_an_empty_side_makes_the_other_all_tail_with_a_finite_loss(
    lengths: tuple[int, int, int],
) -> None:
    batch = lay_out(random_pairs([lengths]))
    policy, reference = table(batch, 0), table(batch, 1)
    policy.values.requires_grad_()
    out = run(ld(0.5), policy, batch, reference)
    (gradient,) = torch.autograd.grad(out.total, policy.values)
    assert torch.isfinite(out.total) and torch.isfinite(gradient).all()
    half = (0.5 * BETA * (policy.logps(batch) - reference.logps(batch)) * (1.0 - 2.0 * batch.segment)).sum()
    assert out.details["weighted_margin"].item() == pytest.approx(half.item(), abs=1e-12)


def test_policy_only_is_both_plus_the_offset_of_the_references_tails() -> None:
    """m(policy_only) = m(both) - beta (1 - alpha) (T_ref(chosen) - T_ref(rejected)), pair by pair."""
    batch = lay_out(random_pairs(LENGTHS))
    policy, reference = table(batch, 0), table(batch, 1)
    both, policy_only = (
        run(ld(0.4, mode), policy, batch, reference).details["weighted_margin"] for mode in MODES
    )
    shared = torch.minimum(batch.length, preference.partner(batch.length))[batch.segment]
    tails = preference.segment_sums(
        torch.where(batch.position > shared, reference.logps(batch), 0.0), batch.segment, batch.segments
    )
    want = both - BETA * 0.6 * preference.margins(tails)
    torch.testing.assert_close(policy_only, want, rtol=0, atol=1e-12)
