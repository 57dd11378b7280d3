"""The decoder against one-by-one decoding, with a tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import llmfw
from llmfw.testing import plugin_module

PROMPTS = ["one two three one two three one two", "abc", "the end the end the"]


def answers(plugins: list[str], *settings: str, **sampling: Any) -> list[tuple[int, ...]]:
    made = llmfw.generate(
        PROMPTS,
        "model=tiny-llama",
        "generation.max_new_tokens=24",
        *settings,
        plugins=plugins,
        **sampling,
    )
    return [answer.ids for answer in made.completions]


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "seed": 3}, {"temperature": 0.7, "top_k": 5}])
def test_the_tokens_are_those_of_one_by_one_decoding(sampling: dict[str, Any]) -> None:
    alone = answers([], **sampling)
    assert answers(["my_method"], **sampling) == alone
    assert answers(["my_method"], "my_method.length=0", **sampling) == alone
    assert answers(["my_method"], "my_method.length=3", "my_method.ngram=1", **sampling) == alone


def test_guesses_save_forward_passes(tmp_path: Path) -> None:
    reproduce = plugin_module("my_method", "reproduce")
    workspace = llmfw.Workspace(dir=tmp_path, seed=1, size="smoke")
    alone, guessed = (reproduce.tokens_per_pass(workspace, length=length) for length in (0, 8))
    assert alone["tokens_per_pass"] == 1.0 < guessed["tokens_per_pass"]
    assert guessed["sum_of_ids"] == alone["sum_of_ids"]


def test_a_negative_length_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(llmfw.LlmfwError, match=r"my_method\.length"):
        llmfw.plan("model=tiny-llama", "my_method.length=-1", plugins=["my_method"])
