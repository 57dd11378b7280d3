"""The made task: exact shares, quality decides, a function of the seed, length and quality apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmfw.testing import plugin_module

synthetic = plugin_module("ld_dpo", "synthetic")
SIZES = synthetic.Sizes(texts=300, pairs=400, held_out=200)


def drawn(seed: int = 7) -> Any:
    return synthetic.rows(seed, SIZES)


def quality(text: str) -> int:
    found = synthetic.quality(text)
    assert found is not None
    return int(found)


def test_an_answer_is_its_quality_and_the_beginning_of_the_alphabet() -> None:
    assert synthetic.answer(4, 9) == "9abcd"
    parts = drawn()
    texts = [row["completion"] for row in parts["texts"]]
    texts += [
        row[side] for name in ("pairs", "held_out") for row in parts[name] for side in ("chosen", "rejected")
    ]
    for text in texts:
        letters = len(text) - 1
        assert synthetic.FEWEST <= letters <= synthetic.MOST
        assert text == synthetic.answer(letters, quality(text))


@pytest.mark.parametrize("text", ["", "abc", "7abd", "7b", "77abc", "7abc ", "²abc"])
def test_a_text_of_another_form_has_no_quality(text: str) -> None:
    assert synthetic.quality(text) is None
    assert synthetic.quality("7abc") == 7


@pytest.mark.parametrize(("part", "longer"), [("pairs", 340), ("held_out", 100)])
def test_the_longer_side_is_chosen_in_exactly_the_stated_share_of_pairs(part: str, longer: int) -> None:
    """85% of 400 training pairs, half of 200 held-out ones; the other pairs have the shorter side chosen."""
    gaps = [len(row["chosen"]) - len(row["rejected"]) for row in drawn()[part]]
    assert sum(gap > 0 for gap in gaps) == longer
    assert sum(gap < 0 for gap in gaps) == len(gaps) - longer


def test_the_higher_quality_is_always_chosen() -> None:
    parts = drawn()
    for row in [*parts["pairs"], *parts["held_out"]]:
        assert quality(row["chosen"]) > quality(row["rejected"])


def test_quality_and_length_are_drawn_apart() -> None:
    """Whatever the pairs' direction, the sizes of both gaps have no correlation: |r| of 4000 independent
    pairs is below 0.05 but once in 600 draws, and the draw is fixed.
    """
    pairs = synthetic.rows(1, synthetic.Sizes(texts=0, pairs=4000, held_out=0))["pairs"]
    better = [quality(row["chosen"]) - quality(row["rejected"]) for row in pairs]
    longer = [abs(len(row["chosen"]) - len(row["rejected"])) for row in pairs]
    assert abs(correlation(better, longer)) < 0.05
    texts = synthetic.rows(1, synthetic.Sizes(texts=4000, pairs=0, held_out=0))["texts"]
    assert (
        abs(correlation([quality(t["completion"]) for t in texts], [len(t["completion"]) for t in texts]))
        < 0.05
    )


def correlation(first: list[int], second: list[int]) -> float:
    n, mean, other = len(first), sum(first) / len(first), sum(second) / len(second)
    over = sum((a - mean) * (b - other) for a, b in zip(first, second, strict=True)) / n
    return float(
        over / (sum((a - mean) ** 2 for a in first) * sum((b - other) ** 2 for b in second)) ** 0.5 * n
    )


def test_rows_are_a_function_of_the_seed_and_no_prompt_comes_twice() -> None:
    assert drawn(7) == drawn(7) != drawn(8)
    prompts = [row["prompt"] for part in drawn().values() for row in part]
    assert len(set(prompts)) == len(prompts) == 900


def test_files_hold_what_was_drawn(tmp_path: Path) -> None:
    files = synthetic.write(tmp_path, 7, SIZES)
    for name, rows in drawn(7).items():
        assert [json.loads(line) for line in files[name].read_text().splitlines()] == rows
