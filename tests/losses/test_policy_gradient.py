"""Advantages, surrogates and the pull to the reference, with numbers worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from llmfw.core.batch import Batch
from llmfw.core.data import Example, TokenSequence, collate
from llmfw.core.errors import ConflictError, LlmfwError, PluginError, UsageError
from llmfw.core.models import LocalPolicy
from llmfw.losses import policy_gradient as pg
from llmfw.testing.pairs import tiny_llama

REWARDS = st.lists(st.tuples(st.floats(-3, 3), st.sampled_from("abc")), min_size=1, max_size=12)


class Table:
    """A policy whose log-probs are given: [N]."""

    def __init__(self, logps: Tensor) -> None:
        self.given = logps

    def logps(self, batch: Batch) -> Tensor:
        return self.given


def scored(lengths: list[int], **extra: list[float]) -> Batch:
    """Completions of so many tokens after a prompt of two."""
    examples = [
        Example(
            id=str(index), kind="scored",
            sequences=(TokenSequence((1, 2, *range(3, 3 + count)), (False, False, *[True] * count)),),
            extra={name: values[index] for name, values in extra.items()},
        )
        for index, count in enumerate(lengths)
    ]  # fmt: skip
    return collate(examples, 0)


def test_a_groups_mean_is_taken_off_and_its_deviation_divides() -> None:
    """a: 1 0 -> mean 0.5, deviation 0.5: 1 and -1; b: 1 1 1 -> nothing to learn."""
    groups = ["a", "b", "a", "b", "b"]
    found = pg.advantages([1, 1, 0, 1, 1], groups, baseline="group", scale=True, epsilon=0)
    assert [found[0], found[2]] == [1.0, -1.0]
    assert pg.advantages([1, 1, 0, 1, 1], groups, scale=True) == [
        pytest.approx(0.5 / 0.5001), 0.0, pytest.approx(-0.5 / 0.5001), 0.0, 0.0
    ]  # fmt: skip


def test_the_mean_of_all_and_no_baseline_know_no_groups() -> None:
    """Mean of 3 1 2 0 is 1.5, deviation sqrt(1.25)."""
    assert pg.advantages([3, 1, 2, 0], "abab", baseline="mean") == [1.5, -0.5, 0.5, -1.5]
    assert pg.advantages([3, 1], "ab", baseline="none") == [3, 1]
    scaled = pg.advantages([3, 1, 2, 0], "abab", baseline="mean", scale=True, epsilon=0)
    assert scaled[0] == pytest.approx(1.5 / math.sqrt(1.25))


def test_leaving_one_out_takes_the_mean_of_the_others() -> None:
    """3 - mean(1, 2) = 1.5; 1 - 2.5; 2 - 2; a group of one learns nothing."""
    assert pg.advantages([3, 1, 2, 7], "aaab", baseline="leave_one_out") == [1.5, -1.5, 0.0, 0.0]


@given(REWARDS)
def test_a_groups_advantages_sum_to_nothing_and_do_not_know_of_other_groups(items) -> None:
    rewards, groups = [reward for reward, _ in items], [group for _, group in items]
    found = pg.advantages(rewards, groups)
    for name in set(groups):
        own = [index for index, group in enumerate(groups) if group == name]
        assert math.fsum(found[index] for index in own) == pytest.approx(0, abs=1e-9)
        alone = pg.advantages([rewards[index] for index in own], [name] * len(own))
        assert alone == [found[index] for index in own]


def test_as_many_groups_as_rewards_and_a_known_baseline_are_needed() -> None:
    with pytest.raises(ValueError, match="2 rewards and 1 groups"):
        pg.advantages([1, 2], ["a"])
    with pytest.raises(UsageError, match="none, mean, group, leave_one_out"):
        pg.advantages([1], ["a"], baseline="best")  # type: ignore[arg-type]


def test_reinforce_pulls_each_token_by_its_completions_advantage() -> None:
    """Two completions of 2 and 1 tokens, advantages 2 and -1: value -(2 + 2 - 1) at ratio 1, gradient -A."""
    logps = torch.tensor([-1.0, -2.0, -3.0], requires_grad=True)
    output = pg.policy_gradient_loss()(Table(logps), scored([2, 1], advantage=[2.0, -1.0]), None)
    output.total.backward()
    assert output.total.item() == -3.0
    assert logps.grad is not None and logps.grad.tolist() == [-2.0, -2.0, 1.0]
    assert output.metrics["advantage"][0].item() == 1.0 and output.metrics["length"] == (3, 2)


def test_the_reward_stands_for_the_advantage_where_there_is_none() -> None:
    batch = scored([2, 1], reward=[2.0, -1.0])
    logps = torch.tensor([-1.0, -2.0, -3.0])
    assert pg.policy_gradient_loss()(Table(logps), batch, None).total.item() == -3.0
    both = scored([2, 1], reward=[2.0, -1.0], advantage=[0.0, 1.0])
    output = pg.policy_gradient_loss()(Table(logps), both, None)
    assert output.total.item() == -1.0 and output.metrics["reward"][0].item() == 1.0


def test_a_mean_over_each_completions_tokens_makes_completions_count_alike() -> None:
    """Lengths 2 and 1: -(2 + 2) / 2 - (-1) / 1 = -1."""
    batch = scored([2, 1], advantage=[2.0, -1.0])
    loss = pg.policy_gradient_loss(per_sequence=True)
    assert loss(Table(torch.tensor([-1.0, -2.0, -3.0])), batch, None).total.item() == -1.0


def test_the_clip_takes_the_gradient_away_where_the_ratio_has_gone_far_enough() -> None:
    """Ratios 2, 0.5, 2, 0.5 with advantages 1, 1, -1, -1 and clip 0.2: 1.2, 0.5, 2, 0.8 times the advantage;
    the first and the last are clipped.
    """
    logps = torch.log(torch.tensor([2.0, 0.5, 2.0, 0.5])).requires_grad_()
    batch = scored([1, 1, 1, 1], advantage=[1.0, 1.0, -1.0, -1.0])
    batch = replace(batch, extra={**batch.extra, "old_logps": torch.zeros(4)})
    output = pg.policy_gradient_loss(clip=0.2)(Table(logps), batch, None)
    assert output.total.item() == pytest.approx(-1.2 - 0.5 + 2 + 0.8)
    output.total.backward()
    assert logps.grad is not None
    assert logps.grad.tolist() == pytest.approx([0.0, -0.5, 2.0, 0.0])
    assert output.metrics["clipped"][0].item() == 2
    assert output.metrics["ratio"][0].item() == pytest.approx(5.0)


def test_the_gap_to_the_reference_is_never_negative_and_zero_at_it() -> None:
    """d = ln 2: 2 - ln 2 - 1."""
    gap = pg.reference_gap(torch.tensor([-1.0, -1.0]), torch.tensor([-1.0, -1.0 + math.log(2)]))
    assert gap.tolist() == [0.0, pytest.approx(1 - math.log(2))]
    values = torch.linspace(-4, 4, 41)
    assert (pg.reference_gap(torch.zeros(41), values) >= 0).all()


def test_the_pull_to_the_reference_is_added_to_each_token_with_its_weight() -> None:
    logps, batch = torch.tensor([-1.0, -1.0, -1.0]), scored([2, 1], advantage=[0.0, 0.0])
    reference = Table(torch.tensor([-1.0, -1.0 + math.log(2), -1.0]))
    output = pg.policy_gradient_loss(beta=0.5)(Table(logps), batch, reference)
    assert output.total.item() == pytest.approx(0.5 * (1 - math.log(2)))
    assert output.metrics["kl"][0].item() == pytest.approx(1 - math.log(2))
    with pytest.raises(PluginError, match="there is none"):
        pg.policy_gradient_loss(beta=0.5)(Table(logps), batch, None)


def test_the_gap_is_unbiased_under_the_policy() -> None:
    """Over a vocabulary of three, the expectation is the divergence itself."""
    policy, reference = (
        torch.log_softmax(torch.tensor([1.0, 0.0, -1.0]), 0),
        torch.log_softmax(torch.ones(3), 0),
    )
    expected = (policy.exp() * (policy - reference)).sum()
    assert (policy.exp() * pg.reference_gap(policy, reference)).sum().item() == pytest.approx(expected.item())


@pytest.mark.parametrize("settings", [{"clip": 0.0}, {"clip": 1.5}, {"beta": -1.0}])
def test_settings_outside_their_range_are_refused(settings) -> None:
    with pytest.raises(UsageError):
        pg.policy_gradient_loss(**settings)


def test_a_batch_without_rewards_is_refused() -> None:
    with pytest.raises(ConflictError, match="give the rows a reward"):
        pg.policy_gradient_loss()(Table(torch.zeros(2)), scored([2]), None)
    assert issubclass(ConflictError, LlmfwError)


def test_a_real_model_comes_to_prefer_what_was_rewarded() -> None:
    model = tiny_llama()
    policy = LocalPolicy(model, {}, None)
    batch = scored([3, 3], advantage=[1.0, -1.0])
    batch = replace(batch, input_ids=batch.input_ids.clone())
    batch.input_ids[1, 2:] += 5
    batch = replace(batch, target=batch.input_ids.flatten()[batch.source + 1])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    before = policy.logps(batch).detach()
    for _ in range(3):
        optimizer.zero_grad()
        pg.policy_gradient_loss(clip=0.5)(policy, batch, None).total.backward()
        optimizer.step()
    change = (policy.logps(batch).detach() - before).view(2, 3).sum(1)
    assert change[0] > change[1] + 0.01
