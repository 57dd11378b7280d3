"""Weights, sums, links and the call of a preference loss, with numbers worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from llmfw.core.batch import Batch
from llmfw.core.errors import ConflictError, PluginError, UsageError
from llmfw.core.models import LocalPolicy
from llmfw.losses import preference as p
from llmfw.testing.pairs import Layout, Pair, lay_out, random_pairs, tiny_llama


class Table:
    """A policy whose log-probs are given: one number per position of the batch's rows."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def logps(self, batch: Batch) -> Tensor:
        return self.values.flatten()[batch.source]


def one_pair(chosen: int, rejected: int) -> Batch:
    return lay_out(random_pairs([(2, chosen, rejected)]))


def table(batch: Batch, seed: int) -> Table:
    draw = torch.Generator().manual_seed(seed)
    return Table(-torch.rand(batch.input_ids.shape, generator=draw, dtype=torch.float64))


# weights, sums, pairs


def test_shared_length_keeps_as_many_tokens_as_the_shorter_side_has() -> None:
    position, length = torch.tensor([1, 2, 3, 1]), torch.tensor([3, 3, 3, 1])
    assert p.shared_length(position, length, torch.tensor([2, 2, 2, 5])).tolist() == [1, 1, 0, 1]


def test_segment_sums_leave_empty_segments_at_zero() -> None:
    sums = p.segment_sums(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 0, 2]), 4)
    assert sums.tolist() == [3.0, 0.0, 4.0, 0.0]


def test_pairs_own_one_segment_of_each_half() -> None:
    values = torch.tensor([1, 2, 10, 20])
    assert [part.tolist() for part in p.split_pairs(values)] == [[1, 2], [10, 20]]
    assert p.partner(values).tolist() == [10, 20, 1, 2]
    assert p.margins(values).tolist() == [-9, -18]
    with pytest.raises(ValueError, match="even"):
        p.split_pairs(values[:3])


def test_a_weight_is_rounded_once_to_the_logps_dtype() -> None:
    weight = p.choose(torch.tensor([True, False]), 1.0, 0.1)
    assert weight.tolist() == [1.0, 0.1] and weight.dtype == torch.float64


# links


@pytest.mark.parametrize(
    ("link", "want"),
    [
        (partial(p.sigmoid, beta=0.5), math.log(1 + math.exp(-1.0))),
        (partial(p.ipo, beta=0.5), (2.0 - 1.0) ** 2),
        (partial(p.length_bonus, beta=0.5, bonus=0.25), math.log(1 + math.exp(-(1.0 + 0.75)))),
        (partial(p.target_margin, beta=0.5, gamma=0.25), math.log(1 + math.exp(-(1.0 - 0.25)))),
    ],
)
def test_links_by_hand(link: p.Link, want: float) -> None:
    """Difference 2 nats, chosen 3 tokens longer, beta 0.5: beta times difference is 1."""
    got = link(torch.tensor([2.0], dtype=torch.float64), torch.tensor([3]))
    assert got.item() == pytest.approx(want, abs=1e-15)


def test_a_hopeless_pair_has_a_finite_loss_and_gradient() -> None:
    difference = torch.tensor([-1e6, 1e6], requires_grad=True)
    losses = p.sigmoid(difference, torch.zeros(2), beta=1.0)
    losses.sum().backward()
    assert losses.tolist() == [1e6, 0.0]
    assert difference.grad is not None and difference.grad.tolist() == [-1.0, 0.0]


# the loss


def test_dpo_by_hand() -> None:
    """Chosen -1 -2 against reference -1.5 -2.5 (+1), rejected -4 against -3 (-1): beta 0.5 times 2 is 1."""
    batch = one_pair(2, 1)
    values, reference = torch.zeros(2, 4, dtype=torch.float64), torch.zeros(2, 4, dtype=torch.float64)
    values.flatten()[batch.source] = torch.tensor([-1.0, -2.0, -4.0], dtype=torch.float64)
    reference.flatten()[batch.source] = torch.tensor([-1.5, -2.5, -3.0], dtype=torch.float64)
    out = p.preference_loss(p.dpo(beta=0.5))(Table(values), batch, Table(reference))
    assert out.total.item() == pytest.approx(math.log(1 + math.exp(-1)), abs=1e-15)
    got = {name: float(total) / float(count) for name, (total, count) in out.metrics.items() if count}
    assert got == {
        "rewards/chosen": 0.5, "rewards/rejected": -0.5, "rewards/margins": 1.0, "rewards/accuracies": 1.0,
        "rewards/accuracies/chosen_longer": 1.0,
        "logps/chosen": -3.0, "logps/rejected": -4.0,
        "length/chosen": 2.0, "length/rejected": 1.0, "length/equal": 0.0,
    }  # fmt: skip
    assert {name: value.tolist() for name, value in out.details.items()} == {
        "margin": [1.0], "weighted_margin": [1.0], "length_gap": [1]
    }  # fmt: skip


def test_accuracy_is_split_by_the_longer_side() -> None:
    """Three pairs (chosen longer, rejected longer, equal) have margins +, -, +."""
    batch = lay_out(random_pairs([(2, 3, 1), (2, 1, 3), (2, 2, 2)]))
    values = torch.zeros(batch.input_ids.shape)
    values.flatten()[batch.source] = torch.where(
        batch.segment == 1, -1.0, torch.where(batch.segment < 3, 1.0, 0.0)
    )
    out = p.preference_loss(p.dpo(beta=1.0))(Table(values), batch, Table(torch.zeros_like(values)))
    split = {
        name.rpartition("/")[2]: (int(a), int(b))
        for name, (a, b) in out.metrics.items()
        if name.count("/") == 2
    }
    assert split == {"chosen_longer": (1, 1), "rejected_longer": (0, 1), "equal_length": (1, 1)}


def test_weighted_and_unweighted_values_are_both_logged() -> None:
    """Chosen -1 -1 -1, rejected -2, no tail counted: unweighted chosen sum -3, weighted -1."""
    batch = one_pair(3, 1)
    values = torch.zeros(2, 5)
    values.flatten()[batch.source] = torch.tensor([-1.0, -1.0, -1.0, -2.0])
    objective = replace(p.dpo(beta=1.0), weights=p.shared_length)
    out = p.preference_loss(objective)(Table(values), batch, Table(torch.zeros_like(values)))
    got = {name: float(total) for name, (total, _) in out.metrics.items()}
    assert (got["logps/chosen"], got["logps_weighted/chosen"], got["logps_weighted/rejected"]) == (
        -3.0,
        -1.0,
        -2.0,
    )
    assert (got["rewards/margins"], got["rewards_weighted/margins"]) == (-1.0, 1.0)
    assert (out.details["margin"].item(), out.details["weighted_margin"].item()) == (-1.0, 1.0)


def test_cached_reference_logps_are_used_before_a_live_reference() -> None:
    batch = one_pair(2, 3)
    policy, reference = table(batch, 0), table(batch, 1)
    call = p.preference_loss(p.dpo(beta=0.3))
    cached = replace(batch, reference_logps=reference.logps(batch))
    assert call(policy, cached, None).total == call(policy, batch, reference).total


def test_a_missing_reference_is_an_error_not_a_silent_zero() -> None:
    batch = one_pair(2, 3)
    with pytest.raises(PluginError, match="LOSS-REFERENCE"):
        p.preference_loss(p.dpo(beta=0.3))(table(batch, 0), batch, None)


def test_no_gradient_reaches_the_reference() -> None:
    batch = one_pair(2, 3)
    policy, reference = table(batch, 0), table(batch, 1)
    policy.values.requires_grad_()
    reference.values.requires_grad_()
    p.preference_loss(p.dpo(beta=0.3))(policy, batch, reference).total.backward()
    assert policy.values.grad is not None and policy.values.grad.any()
    assert reference.values.grad is None


def test_simpo_asks_for_no_reference() -> None:
    """Means -1 and -2, beta 2, gamma 1: -log sigmoid(2 - 1)."""
    batch = one_pair(3, 1)
    values = torch.zeros(2, 5)
    values.flatten()[batch.source] = torch.tensor([-0.5, -1.0, -1.5, -2.0])
    out = p.preference_loss(p.simpo(beta=2.0, gamma=1.0))(Table(values), batch, None)
    assert out.total.item() == pytest.approx(math.log(1 + math.exp(-1)), abs=1e-7)


def test_an_objective_without_a_reference_leaves_a_given_one_unread() -> None:
    """Means -1 and -2, beta 2, gamma 1: -log sigmoid(2 * 1 - 1) = log(1 + e^-1), whatever the reference."""
    where = {"segment": torch.tensor([0, 1]), "position": torch.ones(2), "length": torch.ones(2).long()}
    logps, reference = torch.tensor([-1.0, -2.0]), torch.tensor([-0.5, -3.0])
    found = p.pair_losses(p.simpo(beta=2.0, gamma=1.0), logps, reference, **where)
    assert found.tolist() == pytest.approx([math.log(1 + math.exp(-1))])


def test_an_empty_batch_gives_zero_and_counts_nothing() -> None:
    """What a process gets that has no sample left: no segment at all."""
    none = torch.zeros(0, dtype=torch.int64)
    batch = replace(
        one_pair(2, 3), source=none, target=none, segment=none, position=none, length=none, sample_ids=()
    )
    policy = Table(torch.zeros(2, 5, requires_grad=True))
    for objective in (p.dpo(beta=0.1), p.sampo(beta=0.1, seed=0)):
        out = p.preference_loss(objective)(policy, batch, Table(torch.zeros(2, 5)))
        out.total.backward()
        assert out.total.item() == 0.0
        assert all(float(count) == 0 for _, count in out.metrics.values())


@pytest.mark.parametrize("layout", ["left", "packed", "shared_prompt"])
def test_every_layout_gives_the_same_logps_as_the_padded_one(layout: Layout) -> None:
    model = LocalPolicy(tiny_llama(dtype=torch.float64))
    pairs = random_pairs([(3, 5, 2), (1, 4, 7), (6, 1, 1)])
    want = model.logps(lay_out(pairs))
    torch.testing.assert_close(model.logps(lay_out(pairs, layout)), want, rtol=0, atol=1e-12)


# settings


@pytest.mark.parametrize("beta", [0.0, -1.0, math.nan])
def test_beta_must_be_above_zero(beta: float) -> None:
    with pytest.raises(UsageError, match="beta is"):
        p.dpo(beta=beta)


@pytest.mark.parametrize("base", [p.identity_po(beta=0.1), p.simpo(beta=2.0, gamma=1.0)])
def test_token_weights_with_a_length_normalised_loss_are_refused(base: p.Objective) -> None:
    with pytest.raises(ConflictError, match="length-normalised"):
        replace(base, weights=p.shared_length)
    with pytest.raises(ConflictError, match="length-normalised"):
        replace(base, reference_weights=p.shared_length)


# SamPO's draw


def test_shuffled_positions_are_a_permutation_of_each_answer() -> None:
    batch = lay_out(random_pairs([(2, 9, 4), (1, 0, 3)]))
    shuffled = p.shuffled_positions(batch, seed=1)
    for segment, length in enumerate(batch.length.tolist()):
        assert sorted(shuffled[batch.segment == segment].tolist()) == list(range(1, length + 1))
    assert not torch.equal(shuffled, batch.position)


def test_the_draw_depends_on_seed_sample_and_side_alone() -> None:
    """Not on the batch's order or company, nor on the global generator, which stays as it was."""
    pairs = random_pairs([(2, 30, 30), (1, 30, 30)])
    state = torch.random.get_rng_state()
    both = p.shuffled_positions(lay_out(pairs), seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(123)
    alone = p.shuffled_positions(lay_out(pairs[1:]), seed=1)
    first, second, third, fourth = both.split(30)
    assert torch.equal(torch.cat([second, fourth]), alone)
    assert torch.equal(
        p.shuffled_positions(lay_out(pairs[::-1]), seed=1), torch.cat([second, first, fourth, third])
    )
    assert not torch.equal(first, second) and not torch.equal(first, third)
    assert not torch.equal(p.shuffled_positions(lay_out(pairs), seed=2), both)


def test_sampo_keeps_the_shorter_sides_number_of_tokens_on_both_sides() -> None:
    batch = lay_out(random_pairs([(2, 9, 4), (1, 2, 3)]))
    objective = p.sampo(beta=0.1, seed=0)
    ones = torch.ones(batch.tokens)
    where = {"segment": batch.segment, "position": objective.positions(batch), "length": batch.length}
    assert p.scores(objective, ones, None, **where).tolist() == [4, 2, 4, 2]


def test_sampo_keeps_the_same_tokens_of_policy_and_reference() -> None:
    """A policy that is its reference then scores exactly 0, whatever was drawn."""
    batch = lay_out(random_pairs([(2, 9, 4)]))
    same = table(batch, 0)
    out = p.preference_loss(p.sampo(beta=0.1, seed=0))(same, batch, same)
    assert out.total.item() == math.log(2)


def test_swapping_a_pair_negates_every_margin() -> None:
    pairs = [Pair("a", (1, 2), (3, 4, 5), (6,)), Pair("b", (1,), (7,), (8, 9))]
    policy, reference = (LocalPolicy(tiny_llama(seed=seed, dtype=torch.float64)) for seed in (0, 1))
    call = p.preference_loss(p.dpo(beta=0.1))
    one = call(policy, lay_out(pairs), reference).details["margin"]
    other = call(policy, lay_out([pair.swapped for pair in pairs]), reference).details["margin"]
    torch.testing.assert_close(other, -one, rtol=0, atol=1e-12)
