"""What preference runs measure on held-out pairs and of the policy's own answers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from llmfw.callbacks.pair_statistics import PairSums
from llmfw.callbacks.preference import answer_length, pair_metrics
from llmfw.core.batch import LossOutput
from llmfw.core.generation import ScriptedPolicy
from llmfw.core.models import LocalPolicy
from llmfw.core.records import Loss
from llmfw.core.training.validation import validate
from llmfw.losses.preference import dpo, preference_loss
from llmfw.testing.pairs import lay_out, random_pairs, tiny_llama


def measured(batches: list[tuple[list[float], list[int]]]) -> dict[str, float]:
    found = {}
    for metric in pair_metrics("validation"):
        state = metric.factory()
        for margin, gap in batches:
            details = {"margin": torch.tensor(margin), "length_gap": torch.tensor(gap)}
            metric.update(state, LossOutput(total=torch.zeros(()), details=details), None)
        found[metric.name] = float(state.compute())
    return found


def test_intervals_counts_and_correlation_over_batches_by_hand() -> None:
    """Margins 1, 2, 3 with gaps -2, 0, 2: r = 1. Wilson's lower end for 3 of 3 is 3 / (3 + 1.96^2)."""
    got = measured([([1.0, 2.0], [-2, 0]), ([3.0], [2])])
    reach = 4.30265 / math.sqrt(3)
    assert got == {
        "rewards/margins/low": pytest.approx(2 - reach, abs=1e-4),
        "rewards/margins/high": pytest.approx(2 + reach, abs=1e-4),
        "rewards/margins/n": 3.0,
        "rewards/accuracies/low": pytest.approx(3 / (3 + 1.959964**2), abs=1e-6),
        "rewards/accuracies/high": 1.0,
        "rewards/accuracies/n": 3.0,
        "rewards/accuracies/chosen_longer/n": 1.0,
        "rewards/accuracies/rejected_longer/n": 1.0,
        "length/margin_correlation": pytest.approx(1.0),
    }


def test_the_correlation_is_pearsons() -> None:
    draw = torch.Generator().manual_seed(0)
    margin, gap = torch.randn(40, generator=draw), torch.randint(-50, 50, (40,), generator=draw)
    got = measured([(margin.tolist(), gap.tolist())])["length/margin_correlation"]
    assert got == pytest.approx(torch.corrcoef(torch.stack([margin, gap]))[0, 1].item(), abs=1e-6)


@pytest.mark.parametrize(
    ("margin", "gap"), [([0.1, 0.1, 0.1], [1, 2, 3]), ([1.0, 2.0], [3, 3]), ([1.0], [2]), ([], [])]
)
def test_a_constant_has_no_correlation(margin: list[float], gap: list[int]) -> None:
    assert math.isnan(measured([(margin, gap)])["length/margin_correlation"])


def test_sums_read_as_estimates() -> None:
    sums = PairSums(n=4.0, wins=3.0, margin=4.0, margin2=10.0, gap=0.0, gap2=0.0, product=0.0)
    assert (sums.accuracy.value, sums.accuracy.n) == (0.75, 4)
    assert (sums.mean_margin.value, sums.mean_margin.n) == (1.0, 4)


def test_validation_reports_them_beside_the_loss() -> None:
    """The real validation pass over a real model: means lie inside their intervals, counts are the pairs'."""
    policy, reference = (LocalPolicy(tiny_llama(seed=seed)) for seed in (0, 1))
    pairs = random_pairs([(2, 5, 3), (3, 2, 6), (1, 4, 4), (2, 7, 1)])
    loss = Loss(
        name="dpo",
        call=preference_loss(dpo(beta=0.1)),
        batch_kind="preference",
        unit="pairs",
        needs_reference=True,
    )
    batches = [lay_out(pairs[:3]), lay_out(pairs[3:])]
    got = validate(policy, loss, reference, batches, pair_metrics("validation")).metrics
    assert got["rewards/margins/low"] < got["rewards/margins"] < got["rewards/margins/high"]
    assert got["rewards/accuracies/low"] < got["rewards/accuracies"] + 1e-9
    assert got["rewards/accuracies"] - 1e-9 < got["rewards/accuracies/high"]
    assert got["rewards/margins/n"] == 4
    assert (got["rewards/accuracies/chosen_longer/n"], got["rewards/accuracies/rejected_longer/n"]) == (2, 1)
    assert -1.0 <= got["length/margin_correlation"] <= 1.0


def test_answers_to_the_first_different_held_out_prompts_are_measured() -> None:
    """Four rows with three prompts, two wanted: the policy is asked those two, once each."""
    asked: list[Any] = []

    def answer(prompts: Any) -> list[str]:
        asked.extend(prompts)
        return ["ab", "abcd"][: len(prompts)]

    rows = [{"prompt": prompt, "chosen": "x", "rejected": "y"} for prompt in ("p", "p", "q", "r")]
    evaluation = answer_length(lambda split: rows if split == "validation" else [], 2)
    result = evaluation.run(ScriptedPolicy(answer), None)
    assert asked == ["p", "q"]
    assert any(value == 2 for value in result.metrics.values()), "two answers were measured"
    assert all(len(table) == 2 for table in result.tables.values())


def test_without_held_out_rows_nothing_is_measured() -> None:
    assert answer_length(lambda split: [], 2).run(ScriptedPolicy(lambda prompts: []), None).metrics == {}
