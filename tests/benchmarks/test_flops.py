"""Work and its operations, worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import flops
from benchmarks.flops import Shape, Work

SHAPE = Shape(width=4, mlp=6, heads=2, key_heads=1, head_width=2, layers=3, vocabulary=10)
PAIRS = [
    {"prompt": [1, 2], "chosen": [3, 4, 5], "rejected": [6]},
    {"prompt": [1], "chosen": [2], "rejected": [3, 4]},
]


def test_a_positions_operations_are_those_of_its_matrices():
    """Queries 4x4, keys and values 2 * 4x2, output 4x4: 48; the MLP 3 * 4 * 6 = 72; doubled, three layers."""
    assert SHAPE.position == 2 * 3 * (48 + 72)
    assert SHAPE.pair == 4 * 3 * 4
    assert SHAPE.logit == 2 * 4 * 10


def test_the_shape_is_that_of_the_config(tmp_path: Path):
    told = {
        "hidden_size": 8, "intermediate_size": 12, "num_attention_heads": 4, "num_key_value_heads": 2,
        "num_hidden_layers": 5, "vocab_size": 100,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(told))
    assert flops.shape_of(tmp_path) == Shape(8, 12, 4, 2, 2, 5, 100)


def test_the_least_work_of_a_pair_has_its_prompt_once():
    """Prompt 2: 3 pairs. Chosen 3: 2 * 3 to the prompt and 6 among themselves. Rejected 1: 2 and 1."""
    assert flops.needed(PAIRS[:1]) == Work(positions=6, pairs=3 + 12 + 3, logits=4)


def test_the_least_work_of_a_text_is_its_own_tokens():
    assert flops.needed([{"ids": [1, 2, 3, 4], "trained": [0, 0, 1, 1]}]) == Work(4, 10, 2)


def test_padded_rows_are_as_long_as_the_longest_of_their_micro_batch():
    """Rows of 5, 3, 2 and 3 tokens: four of 5, with 15 pairs each. One by one: two of 5, then two of 3."""
    assert flops.padded(PAIRS, 2, all_logits=True) == Work(20, 60, 16)
    assert flops.padded(PAIRS, 2, all_logits=False) == Work(20, 60, 7)
    assert flops.padded(PAIRS, 1, all_logits=True) == Work(10 + 6, 30 + 12, 8 + 4)


def test_real_tokens_have_the_prompt_with_each_side():
    assert flops.real_tokens(PAIRS) == (5 + 3) + (2 + 3)
    assert flops.real_tokens([{"ids": [1, 2, 3], "trained": [0, 1, 1]}]) == 3


@pytest.mark.parametrize(
    ("reference", "again", "expected"),
    [(False, False, 3 * 110 + 3 * 20), (True, False, 4 * 110 + 4 * 20), (True, True, 4 * 110 + 5 * 20)],
)
def test_a_step_is_a_forward_pass_thrice_and_what_comes_on_top(reference, again, expected):
    """Width, heads and head width 1, MLP 3: a position 2 * (4 + 9) = 26, a pair 4, a row of ten logits 20.
    Three positions and eight pairs: 110.
    """
    shape = Shape(width=1, mlp=3, heads=1, key_heads=1, head_width=1, layers=1, vocabulary=10)
    work = Work(positions=3, pairs=8, logits=1)
    assert flops.training(shape, work, reference=reference, logits_again=again) == expected
