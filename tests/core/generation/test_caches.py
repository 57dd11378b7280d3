"""Prefilling in chunks, caches of our own, and attention functions switched on for the length of a call."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import AttentionInterface

from llmfw.core.errors import ConflictError, PluginError
from llmfw.core.generation import FULL_CACHE, Sampling, attention_of, encode_prompt, generate, prefill
from llmfw.core.records import CacheFactory
from tests.core.generation.conftest import tiny_llama

PROMPTS = ["Name a river.", "Hi", "What is the longest word that you know?", "2+2="]


class Forgetful(DynamicLayer):
    """Keeps the first two and the last ``keep`` entries of the prompt; reports the true number of tokens."""

    def __init__(self, keep: int) -> None:
        super().__init__()
        self.keep, self.seen = keep, 0

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any):
        keys, values = super().update(key_states, value_states)
        self.seen += key_states.shape[-2]
        if key_states.shape[-2] > 1 and keys.shape[-2] > self.keep + 2:
            kept = torch.cat([torch.arange(2), torch.arange(keys.shape[-2] - self.keep, keys.shape[-2])])
            self.keys, self.values = keys[:, :, kept], values[:, :, kept]
        return keys, values

    def get_seq_length(self) -> int:
        return self.seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        stored = self.keys.shape[-2] if self.is_initialized else 0
        return stored + query_length, self.seen - stored


def ragged(*keep: int) -> CacheFactory:
    return CacheFactory(name="ragged", build=lambda config: Cache(layers=[Forgetful(size) for size in keep]))


@pytest.mark.parametrize("chunk", [1, 7, 16, 1000])
def test_a_prompt_read_in_chunks_gives_the_logits_of_one_pass(chunk: int, model):
    ids = torch.randint(0, 256, (2, 50), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = model(ids).logits
        past = DynamicCache(config=model.config)
        parts = prefill(model, past, ids, chunk=chunk, every_position=True)
    assert past.get_seq_length() == 50
    assert torch.allclose(parts, whole, atol=1e-4)


def test_a_cache_may_be_filled_in_two_calls_with_padding_on_the_left(model):
    ids = torch.randint(0, 256, (2, 20), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 20, dtype=torch.bool)
    mask[1, :12] = False
    with torch.no_grad():
        past = DynamicCache(config=model.config)
        prefill(model, past, ids[:, :9], mask=mask[:, :9])  # row 1 is all padding so far
        last = prefill(model, past, ids[:, 9:], mask=mask, seen=9, chunk=4)
        alone = model(ids[1:, 12:]).logits[:, -1]
    assert torch.allclose(last[1], alone[0], atol=1e-4)


@pytest.mark.parametrize("chunk", [1, 5, 16])
def test_answers_after_a_chunked_prefill_are_those_of_the_full_one(chunk: int, model, tokenizer):
    factory = replace(FULL_CACHE, prefill_chunk=chunk)
    sampling = Sampling(max_new_tokens=20)
    wanted = [answer.ids for answer in generate(model, tokenizer, PROMPTS, sampling)]
    assert [answer.ids for answer in generate(model, tokenizer, PROMPTS, sampling, cache=factory)] == wanted


def test_a_chunk_of_no_tokens_is_refused(model, tokenizer):
    with pytest.raises(PluginError, match="prefill_chunk is 0"):
        generate(model, tokenizer, ["Hi"], Sampling(), cache=replace(FULL_CACHE, prefill_chunk=0))


def test_a_cache_with_layers_of_unlike_length_answers_at_true_positions(model, tokenizer):
    """The oracle: a full cache whose dropped entries are masked, layer by layer, after the prompt."""
    keep = (6, 11, 30)
    ids = encode_prompt(tokenizer, "What is the longest word that you know?")
    answer = generate(model, tokenizer, [ids], Sampling(max_new_tokens=12), cache=ragged(*keep))[0]
    length, tokens = len(ids), list(ids)

    def masked(module, args, kwargs):
        size = len(tokens)
        bias = torch.zeros(size, size).masked_fill(torch.ones(size, size).triu(1).bool(), -torch.inf)
        bias[
            length:, 2 : length - keep[module.layer_idx]
        ] = -torch.inf  # the prompt itself was read with everything in view
        return args, {**kwargs, "attention_mask": bias[None, None]}

    hooks = [
        layer.self_attn.register_forward_pre_hook(masked, with_kwargs=True) for layer in model.model.layers
    ]
    with torch.no_grad():
        for _ in range(12):
            tokens.append(int(model(torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax()))
    for hook in hooks:
        hook.remove()
    assert list(answer.ids) == tokens[length:]
    assert answer.ids != generate(model, tokenizer, [ids], Sampling(max_new_tokens=12))[0].ids


def test_a_cache_that_forgets_nothing_answers_as_the_full_one(model, tokenizer):
    wanted = [answer.ids for answer in generate(model, tokenizer, PROMPTS, Sampling(max_new_tokens=15))]
    got = generate(model, tokenizer, PROMPTS, Sampling(max_new_tokens=15), cache=ragged(999, 999, 999))
    assert [answer.ids for answer in got] == wanted


def shapes_of(prompts: list[list[int]], *, batched: bool, model, tokenizer) -> list[tuple[int, int]]:
    """(rows, positions) of every prefill."""
    seen: list[tuple[int, int]] = []

    class Watching(DynamicLayer):
        def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any):
            if key_states.shape[-2] > 1:
                seen.append((key_states.shape[0], key_states.shape[-2]))
            return super().update(key_states, value_states)

    layers = model.config.num_hidden_layers
    factory = CacheFactory(
        name="watching",
        build=lambda config: Cache(layers=[Watching() for _ in range(layers)]),
        batched=batched,
    )
    generate(model, tokenizer, prompts, Sampling(max_new_tokens=2), cache=factory)
    return seen[::layers]


def test_a_cache_of_ones_own_never_meets_padding(model, tokenizer):
    prompts = [[1] * 5, [1] * 9, [2] * 5, [3] * 5]
    assert shapes_of(prompts, batched=True, model=model, tokenizer=tokenizer) == [(1, 9), (3, 5)]
    assert shapes_of(prompts, batched=False, model=model, tokenizer=tokenizer) == [
        (1, 9),
        (1, 5),
        (1, 5),
        (1, 5),
    ]


def with_attention(function: Any, name: str = "llmfw_test") -> CacheFactory:
    return CacheFactory(name="own", build=FULL_CACHE.build, attention=(name, function))


def causal(module, query, key, value, attention_mask, **kwargs):
    """sdpa over a mask of its own making: a name that transformers doesn't know gets None."""
    assert attention_mask is None
    size, seen = query.shape[2], key.shape[2]
    mask = torch.ones(size, seen, dtype=torch.bool).tril(seen - size)[None, None]
    return sdpa_attention_forward(module, query, key, value, mask, **kwargs)


def test_an_attention_function_is_used_in_every_layer_and_gone_afterwards(model, tokenizer):
    calls: list[int] = []

    def counting(module, *args, **kwargs):
        calls.append(module.layer_idx)
        return causal(module, *args, **kwargs)

    before = dict(AttentionInterface._global_mapping)
    wanted = generate(model, tokenizer, PROMPTS, Sampling(max_new_tokens=8))
    answers = generate(model, tokenizer, PROMPTS, Sampling(max_new_tokens=8), cache=with_attention(counting))
    assert [a.ids for a in answers] == [a.ids for a in wanted]
    assert calls == [0, 1, 2] * (4 * 8)  # 4 prompts one by one, prompt and 7 more tokens each
    assert model.config._attn_implementation == "sdpa"
    assert before == AttentionInterface._global_mapping


def test_after_an_error_in_the_attention_function_everything_is_as_before(model, tokenizer):
    def broken(*args, **kwargs):
        raise ZeroDivisionError

    before = dict(AttentionInterface._global_mapping)
    model.train()
    with pytest.raises(ZeroDivisionError):
        generate(model, tokenizer, ["Hi"], Sampling(), cache=with_attention(broken))
    assert model.config._attn_implementation == model.model.config._attn_implementation == "sdpa"
    assert before == AttentionInterface._global_mapping
    assert model.training


def test_inside_a_peft_model_the_attention_function_is_set_too(tokenizer):
    from peft import LoraConfig, get_peft_model

    lora = get_peft_model(tiny_llama(), LoraConfig(r=2, target_modules="all-linear"))
    with attention_of(lora, with_attention(causal)):
        assert lora.get_base_model().config._attn_implementation == "llmfw_test"
    assert lora.get_base_model().config._attn_implementation == "sdpa"


def test_calls_may_be_nested_and_the_outer_one_stays_in_force(model):
    factory = with_attention(causal)
    with attention_of(model, factory):
        with attention_of(model, factory):
            pass
        assert model.config._attn_implementation == "llmfw_test"
        assert "llmfw_test" in AttentionInterface._global_mapping
    assert "llmfw_test" not in AttentionInterface._global_mapping


@pytest.mark.parametrize("name", ["sdpa", "eager"])
def test_an_attention_function_can_not_take_a_standing_name(name: str, model, tokenizer):
    with pytest.raises(ConflictError, match=f"a name that is taken.*{name}|{name}.*a name that is taken"):
        generate(model, tokenizer, ["Hi"], Sampling(), cache=with_attention(causal, name))
    assert AttentionInterface._global_mapping["sdpa"] is sdpa_attention_forward


def test_a_model_that_looks_no_attention_function_up_is_named(tokenizer):
    from transformers import BloomConfig, BloomForCausalLM

    model = BloomForCausalLM(BloomConfig(vocab_size=260, hidden_size=16, n_layer=1, n_head=2))
    with pytest.raises(PluginError, match="Bloom"):
        generate(model, tokenizer, ["Hi"], Sampling(), cache=with_attention(causal))


def test_a_cache_is_told_when_its_prompt_has_been_read(model, tokenizer):
    """Once an answer, after the last chunk, before the first new token: the cache holds the prompt alone."""
    told: list[int] = []
    factory = CacheFactory(
        name="told",
        build=lambda config: DynamicCache(config=config),
        prefill_chunk=4,
        after_prefill=lambda cache: told.append(cache.get_seq_length()),
    )
    generate(model, tokenizer, PROMPTS, Sampling(max_new_tokens=3), cache=factory)
    assert sorted(told) == sorted(len(encode_prompt(tokenizer, prompt)) for prompt in PROMPTS)
