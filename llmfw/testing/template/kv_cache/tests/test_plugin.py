"""The cache in a tiny model and in generation."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import llmfw
from llmfw.testing import plugin_module
from llmfw.testing.pairs import tiny_llama

cache = plugin_module("my_method", "cache")
PROMPTS = ["a prompt of some length, so that a window forgets most of it", "short"]


def answers(plugins: list[str], *settings: str) -> list[tuple[int, ...]]:
    made = llmfw.generate(
        PROMPTS,
        "model=tiny-llama",
        "generation.max_new_tokens=24",
        "generation.temperature=1.0",
        *settings,
        plugins=plugins,
    )
    return [answer.ids for answer in made.completions]


def test_the_neutral_setting_is_the_full_cache_and_a_small_window_is_not() -> None:
    alone = answers([])
    neutral = "my_method.recent=1000000"
    assert answers(["my_method"], neutral) == alone
    assert answers(["my_method"], "my_method.sinks=1", "my_method.recent=3") != alone


@pytest.mark.parametrize("chunk", [1, 3, 16])
def test_no_layer_holds_more_than_its_budget(chunk: int) -> None:
    model, ids = tiny_llama(), torch.arange(16)[None]
    past = cache.build(model.config, sinks=2, recent=4)
    with torch.inference_mode():
        model(ids[:, :1], past_key_values=past)
        cache.after_prefill(past)
        for start in range(1, 16, chunk):
            model(ids[:, start : start + chunk], past_key_values=past)
    assert {layer.held for layer in past.layers} == {6} and past.get_seq_length() == 16


def test_what_is_forgotten_is_no_longer_seen() -> None:
    """With one sink and two recent ones a later token's logits don't depend on position 1."""
    model = tiny_llama(num_hidden_layers=1)
    logits = []
    for second in (5, 9):
        past = cache.build(model.config, sinks=1, recent=2)
        with torch.inference_mode():
            model(torch.tensor([[3, second, 4]]), past_key_values=past)
            cache.after_prefill(past)
            for token in (6, 7):
                out = model(torch.tensor([[token]]), past_key_values=past).logits
        logits.append(out)
    assert torch.equal(*logits)


def test_a_model_with_other_layers_is_refused() -> None:
    config: Any = tiny_llama().config
    config.layer_types = ["full_attention", "sliding_attention"]
    with pytest.raises(llmfw.LlmfwError, match="sliding_attention"):
        cache.build(config, sinks=1, recent=2)


def test_a_window_of_nothing_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(llmfw.LlmfwError, match=r"my_method\.recent"):
        llmfw.plan("model=tiny-llama", "my_method.recent=0", plugins=["my_method"])
