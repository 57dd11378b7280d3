from __future__ import annotations

import math

import pytest
import torch

from llmfw.core.evaluation import bootstrap
from llmfw.core.evaluation.bootstrap import estimate


def test_a_mean_of_zeros_and_ones_has_about_the_interval_of_the_normal_distribution():
    """400 items, half of them 1: standard error 0.5 / 20 = 0.025, so 0.5 +- 0.049; 1000 draws are near it."""
    found = bootstrap.mean([0.0, 1.0] * 200)
    assert found.value == 0.5 and found.n == 400
    assert found.low == pytest.approx(0.451, abs=0.006) and found.high == pytest.approx(0.549, abs=0.006)


def test_a_ratio_of_sums_weighs_items_by_their_size_and_is_drawn_as_whole_items():
    """Sums 1 + 9 = 10 over 1 + 3 = 4: 2.5, not the mean 2 of 1 and 3; a resample holds either or both."""
    columns = torch.tensor([[1.0, 1.0], [9.0, 3.0]])
    found = estimate(columns, lambda sums: sums[:, 0] / sums[:, 1])
    assert found.value == 2.5 and (found.low, found.high) == (1.0, 3.0)


def test_the_same_items_give_the_same_interval_and_below_two_there_is_none(monkeypatch):
    values = torch.rand(30, generator=torch.Generator().manual_seed(0)).tolist()
    first = bootstrap.mean(values)
    assert bootstrap.mean(values) == first
    monkeypatch.setattr(bootstrap, "_CELLS", 30 * 7)  # drawn in many parts
    parted = bootstrap.mean(values)
    assert parted.value == first.value and parted.low == pytest.approx(first.low, abs=0.02)
    single = bootstrap.mean([0.25])
    assert single.value == 0.25 and math.isnan(single.low) and math.isnan(single.high) and single.n == 1
