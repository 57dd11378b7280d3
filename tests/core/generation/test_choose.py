"""Drawing from a distribution. The hand-made one is p = 1/2, 1/4, 1/8, 1/8 for tokens 0 to 3."""

from __future__ import annotations

import pytest
import torch

from llmfw.core.generation import distribution, pick, uniforms

LOGITS = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()


def counts(probabilities: torch.Tensor, ids: torch.Tensor | None, draws: int = 80) -> list[int]:
    """How often each of 4 tokens comes over an even grid of uniform numbers: draws x probability."""
    grid = (torch.arange(draws, dtype=torch.float64) + 0.5) / draws
    rows = probabilities.expand(draws, -1)
    picked = pick(rows, None if ids is None else ids.expand(draws, -1), grid)
    return torch.bincount(picked, minlength=4).tolist()


def test_at_temperature_one_tokens_come_as_often_as_the_model_says():
    assert counts(*distribution(LOGITS, temperature=1.0)) == [40, 20, 10, 10]


def test_temperature_two_takes_the_square_root_of_the_odds():
    # p^(1/2) = .7071, .5, .3536, .3536, sum 1.9142: shares .3694, .2612, .1847, .1847
    probabilities, ids = distribution(LOGITS, temperature=2.0)
    assert ids is None
    assert probabilities[0].tolist() == pytest.approx([0.36940, 0.26120, 0.18470, 0.18470], abs=1e-4)


def test_top_k_two_leaves_two_thirds_and_one_third():
    # 1/2 : 1/4 renormalised
    assert counts(*distribution(LOGITS, temperature=1.0, top_k=2), draws=90) == [60, 30, 0, 0]


def test_top_p_keeps_the_smallest_set_whose_mass_reaches_it():
    # .5 + .25 = .75 reaches .6; .5 alone doesn't
    assert counts(*distribution(LOGITS, temperature=1.0, top_p=0.6), draws=90) == [60, 30, 0, 0]


def test_top_p_at_an_exact_sum_keeps_no_token_more():
    assert counts(*distribution(LOGITS, temperature=1.0, top_p=0.75), draws=90) == [60, 30, 0, 0]


def test_the_likeliest_token_stays_however_small_top_p_is():
    assert counts(*distribution(LOGITS, temperature=1.0, top_p=1e-9)) == [80, 0, 0, 0]


def test_top_p_counts_what_top_k_has_left():
    # top_k=3 leaves 4/7, 2/7, 1/7; the first two make 6/7 = .857, so top_p=.8 drops the third
    # (without top_k .5 + .25 = .75 wouldn't do, and it would stay)
    assert counts(*distribution(LOGITS, temperature=1.0, top_k=3, top_p=0.8), draws=90) == [60, 30, 0, 0]


def test_a_token_of_no_probability_is_never_picked_even_at_the_ends():
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]]).expand(2, -1)
    probabilities, ids = distribution(logits, temperature=1.0)
    edges = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert pick(probabilities, ids, edges).tolist() == [1, 3]


def test_a_flat_nucleus_wider_than_the_first_look_is_found_in_full():
    # 5,000 equal tokens: top_p=.5 needs 2,500, more than the candidates that are looked at first
    probabilities, ids = distribution(torch.zeros(1, 5000), temperature=1.0, top_p=0.5)
    assert ids is not None
    assert abs(int((probabilities > 0).sum()) - 2500) <= 1


def test_the_first_look_and_the_full_sort_pick_the_same_token():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(4, 5000, generator=generator) * 4
    uniform = torch.rand(4, dtype=torch.float64, generator=generator)
    few = distribution(logits, temperature=0.5, top_p=0.9)
    assert few[1] is not None and few[1].shape[1] == 1024
    values, ids = (logits / 0.5).softmax(-1).sort(descending=True, stable=True)
    kept = values.masked_fill(values.cumsum(-1) - values >= 0.9, 0.0)
    assert pick(*few, uniform).tolist() == pick(kept / kept.sum(-1, keepdim=True), ids, uniform).tolist()


def test_an_answers_random_numbers_do_not_depend_on_how_many_are_drawn_or_for_whom():
    short, long = uniforms([7], 5), uniforms([3, 7], 100)
    assert torch.equal(short[0], long[1, :5])
    assert not torch.equal(long[0], long[1])


def test_drawing_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    uniforms([1, 2], 10)
    assert torch.equal(before, torch.get_rng_state())
