"""The model itself is asked whether samples in one row stay apart."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Lfm2Config, LlamaConfig, MambaConfig, MistralConfig

from llmfw.core.data import Example, TokenSequence, collate
from llmfw.core.errors import ConflictError
from llmfw.core.models.policy import LocalPolicy
from llmfw.core.training.packed import leak, refuse_leaks, refuse_windows

SIZES: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip
LAYOUTS = {layout: partial(collate, pad_id=0, layout=layout) for layout in ("packed", "shared_prompt")}


def _examples() -> list[Example]:
    sequence = TokenSequence(tuple(range(3, 12)), (False, *[True] * 8))
    return [Example(id="s", kind="text", extra={"prompt_length": (1,)}, sequences=(sequence,))]


def _policy(config: Any, attention: str = "sdpa") -> LocalPolicy:
    torch.manual_seed(0)
    return LocalPolicy(AutoModelForCausalLM.from_config(config, attn_implementation=attention))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_attention_keeps_samples_apart(layout, attention) -> None:
    policy = _policy(LlamaConfig(**SIZES), attention)
    before = policy.module.training
    moved, difference = leak(policy, _examples(), LAYOUTS[layout])
    assert moved == 0.0 and difference < 1e-5 and policy.module.training is before
    refuse_leaks(policy, _examples(), LAYOUTS[layout])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_state_does_not(layout) -> None:
    convolving = Lfm2Config(**SIZES, layer_types=["conv", "full_attention"], initializer_range=0.3)
    with pytest.raises(ConflictError, match="PACKING-LEAK.*Lfm2ForCausalLM doesn't keep the samples of one"):
        refuse_leaks(_policy(convolving, "eager"), _examples(), LAYOUTS[layout])


def test_a_model_that_fails_on_such_a_row_is_named() -> None:
    mamba = MambaConfig(vocab_size=40, hidden_size=16, num_hidden_layers=2, state_size=4)
    with pytest.raises(ConflictError, match="PACKING-MODEL.*MambaForCausalLM fails on samples in one row"):
        refuse_leaks(_policy(mamba, "eager"), _examples(), LAYOUTS["packed"])


def test_positions_that_are_not_those_of_the_sample_alone_are_seen() -> None:
    """Nothing leaks, but every later sample is computed as if it stood farther back."""
    policy = _policy(LlamaConfig(**SIZES, initializer_range=0.5))

    def misplaced(examples: Any) -> Any:
        batch = LAYOUTS["packed"](examples)
        batch.position_ids.mul_(3)
        return batch

    with pytest.raises(ConflictError, match="PACKING-LEAK.*log-probs differ by .* nats from those of"):
        refuse_leaks(policy, _examples(), misplaced)


def test_samples_that_reach_farther_back_than_a_layer_are_refused_where_nothing_cuts_them() -> None:
    """With spans the window is cut for each; a mask of ours, under eager attention, has none."""
    windowed = MistralConfig(**SIZES, sliding_window=6)
    refuse_windows(_policy(windowed), longest=9)
    refuse_windows(_policy(windowed, "eager"), longest=6)
    with pytest.raises(ConflictError, match="PACKING-WINDOW.*up to 7 tokens.*MistralForCausalLM look back 6"):
        refuse_windows(_policy(windowed, "eager"), longest=7)
