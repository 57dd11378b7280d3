"""The model itself is asked whether packed samples see each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Lfm2Config, LlamaConfig, MambaConfig

from llmfw.core.data import Example, TokenSequence, pack
from llmfw.core.errors import ConflictError
from llmfw.core.models.policy import LocalPolicy
from llmfw.core.training.packed import leak, refuse_leaks


def _units() -> list[Example]:
    texts = [
        Example(
            id=f"s{size}", kind="text", extra={"prompt_length": (1,)},
            sequences=(TokenSequence(tuple(range(3, 3 + size)), (False, *[True] * (size - 1))),),
        )
        for size in (9, 6)
    ]  # fmt: skip
    return pack(texts, 16)


def _policy(config: Any) -> LocalPolicy:
    torch.manual_seed(0)
    return LocalPolicy(AutoModelForCausalLM.from_config(config))


def test_attention_keeps_samples_apart_and_a_state_does_not() -> None:
    llama = LlamaConfig(vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
                        num_attention_heads=4, num_key_value_heads=2)  # fmt: skip
    policy = _policy(llama)
    before = policy.module.training
    assert leak(policy, _units(), 0) == 0.0 and policy.module.training is before
    refuse_leaks(policy, _units(), 0)
    convolving = Lfm2Config(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, layer_types=["conv", "full_attention"], initializer_range=0.3,
    )  # fmt: skip
    with pytest.raises(ConflictError, match="PACKING-LEAK.*Lfm2ForCausalLM lets packed samples see each"):
        refuse_leaks(_policy(convolving), _units(), 0)
    mamba = MambaConfig(vocab_size=40, hidden_size=16, num_hidden_layers=2, state_size=4)
    with pytest.raises(ConflictError, match="PACKING-MODEL.*MambaForCausalLM fails on a packed row"):
        refuse_leaks(_policy(mamba), _units(), 0)


def test_nothing_is_asked_where_no_two_samples_are_packed() -> None:
    class Never:
        module = companions = None

    assert leak(Never(), _units()[:0], 0) is None  # type: ignore[arg-type]
