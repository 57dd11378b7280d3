"""A batch that is kept full: who joins when, what is read, what is held, and that no answer notices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, MambaConfig, MambaForCausalLM, MistralConfig
from transformers import MistralForCausalLM as Mistral

from llmfw.core.generation import FULL_CACHE, Sampling, encode_prompt, generate
from llmfw.core.generation.columns import Columns
from tests.core.generation.conftest import tiny_llama
from tests.core.generation.test_engine import greedy_by_transformers

PROMPTS = ["Sing!", "Hi", "What is the longest word that you know, and who told you?", "2+2=", "a", "Go on."]
COMMON = {"vocab_size": 260, "bos_token_id": None, "eos_token_id": None, "pad_token_id": 256}


def ragged_ends(model, tokenizer, prompts: list[Any], length: int) -> tuple[int, ...]:
    """End-of-turn ids at which most greedy answers end early, each somewhere else."""
    free = generate(model, tokenizer, prompts, Sampling(max_new_tokens=length))
    return tuple({answer.ids[(3 * row) % length] for row, answer in enumerate(free) if row % 3})


class Told:
    """What the model was asked: rows and positions of every forward pass, and rows that its cache held."""

    def __init__(self, model) -> None:
        self.read: list[int] = []  # tokens of prompts
        self.steps: list[int] = []  # rows of steps
        self.held: set[int] = set()
        self._hook = model.register_forward_pre_hook(self._look, with_kwargs=True)

    def _look(self, module, args, kwargs) -> None:
        ids, mask = kwargs["input_ids"], kwargs.get("attention_mask")
        if ids.shape[1] == 1:
            self.steps.append(len(ids))
        else:
            self.read.append(ids.numel() if mask is None else int(mask.sum()))
        layer = kwargs["past_key_values"].layers[0]  # of the batch, or what reads prompts into it
        self.held |= {len(buffer) for buffer in getattr(layer, "layer", layer).buffers}


def test_greedy_answers_are_transformers_own_while_rows_leave_and_join(model, tokenizer):
    prompts = [f"{prompt}{number}" for number in range(3) for prompt in PROMPTS]
    ends = ragged_ends(model, tokenizer, prompts, 24)
    answers = generate(model, tokenizer, prompts, Sampling(max_new_tokens=24, stop_ids=ends), batch_size=4)
    for prompt, answer in zip(prompts, answers, strict=True):
        assert list(answer.ids) == greedy_by_transformers(model, encode_prompt(tokenizer, prompt), 24, ends)
    assert len({len(answer.ids) for answer in answers}) > 5


@pytest.mark.parametrize("chunk", [None, 7])
def test_sampled_answers_and_their_log_probs_are_those_of_one_by_one(chunk: int | None, model, tokenizer):
    sampling = Sampling(
        max_new_tokens=20, temperature=1.0, top_p=0.95, stop_ids=tuple(range(40)), samples=3, logps=True
    )
    cache = replace(FULL_CACHE, prefill_chunk=chunk)
    alone = generate(model, tokenizer, PROMPTS, sampling, batch_size=1)
    together = generate(model, tokenizer, PROMPTS, sampling, batch_size=4, cache=cache)
    assert [answer.ids for answer in together] == [answer.ids for answer in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.logps == pytest.approx(other.logps, abs=1e-5)


def test_a_prompt_is_read_once_even_if_its_samples_join_at_different_times(model, tokenizer):
    """5 samples a prompt in 4 rows: some join later and copy the prompt from those that are there."""
    told = Told(model)
    sampling = Sampling(max_new_tokens=20, temperature=1.0, stop_ids=tuple(range(40)), samples=5)
    answers = generate(model, tokenizer, [*PROMPTS, PROMPTS[0]], sampling, batch_size=4)
    assert sum(told.read) == sum(len(encode_prompt(tokenizer, prompt)) for prompt in PROMPTS)
    assert len(told.read) >= len(PROMPTS) - 1 and answers[0].ids != answers[-5].ids
    assert max(told.steps) == 4 == max(told.held)  # the rest of the rows, at the end, in buffers of their own


def test_rows_are_nearly_always_alive(model, tokenizer):
    """Answers of 1 to 20 tokens in 4 rows: dealt out in fours, over a quarter of the rows' steps is lost."""
    told = Told(model)
    sampling = Sampling(max_new_tokens=20, temperature=1.0, stop_ids=tuple(range(30)), samples=8)
    answers = generate(model, tokenizer, PROMPTS, sampling, batch_size=4)
    # an answer's first token comes with its prompt, its last one is not read any more
    needed = sum(len(answer.ids) - 1 for answer in answers)
    fixed = sum(4 * (max(len(a.ids) for a in answers[at : at + 4]) - 1) for at in range(0, len(answers), 4))
    assert needed / fixed < 0.75
    assert needed / sum(told.steps) > 0.75


def test_columns_that_no_living_row_uses_are_let_go(model, tokenizer):
    """Some hundred steps in 2 rows: before each the cache shows the longest living row, and never grows."""
    prompts = [encode_prompt(tokenizer, prompt) for prompt in PROMPTS * 4]
    written: dict[int, int] = {}
    shown: list[tuple[int, int]] = []
    capacity: set[int] = set()

    def look(module, args, kwargs) -> None:
        past = kwargs["past_key_values"]
        if isinstance(past, Columns):
            longest = max(len(prompts[index]) + count - 1 for index, count in written.items())
            shown.append((past.get_seq_length(), longest))
            capacity.update(layer.buffers[0].shape[-2] for layer in past.columns)

    model.register_forward_pre_hook(look, with_kwargs=True)
    sampling = Sampling(max_new_tokens=12, temperature=1.0, stop_ids=tuple(range(12)))
    generate(
        model, tokenizer, prompts, sampling, batch_size=2,
        watch=lambda index, token: written.__setitem__(index, written.get(index, 0) + 1),
        done=lambda index, answer: written.pop(index),
    )  # fmt: skip
    assert len(shown) > 60 and all(width == longest for width, longest in shown)
    assert max(capacity) <= max(map(len, prompts)) + 2 * 12


def test_rows_that_wait_to_be_replaced_stay_inside_the_context(tokenizer):
    """Learned positions: one beyond the 64 would be an index error."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.3, **COMMON)
    ).eval()
    prompts = [
        [*range(start, start + length)] for start, length in enumerate((62, 61, 60, 30, 20, 20, 10, 9))
    ]
    answers = generate(model, tokenizer, prompts, Sampling(max_new_tokens=40), batch_size=16)
    few = generate(model, tokenizer, prompts, Sampling(max_new_tokens=40), batch_size=3)
    assert [len(answer.ids) for answer in answers] == [2, 3, 4, 34, 40, 40, 40, 40]
    for prompt, answer, other in zip(prompts, answers, few, strict=True):
        assert list(answer.ids) == list(other.ids) == greedy_by_transformers(model, prompt, len(answer.ids))


def test_stop_strings_end_rows_that_joined_later(model, tokenizer):
    free = generate(model, tokenizer, PROMPTS, Sampling(max_new_tokens=30), batch_size=1)
    stop = tuple(
        text for answer in free for at in (6, 15)
        if (text := tokenizer.decode(answer.ids[at : at + 2])).isascii()
    )  # fmt: skip
    sampling = Sampling(max_new_tokens=30, stop=stop)
    alone = generate(model, tokenizer, PROMPTS, sampling, batch_size=1)
    assert generate(model, tokenizer, PROMPTS, sampling, batch_size=2) == alone
    assert {answer.finish for answer in alone} >= {"stop"}


def test_a_sliding_window_is_dealt_out_in_batches_that_read_a_prompt_once(tokenizer):
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = Mistral(
        MistralConfig(**shape, num_key_value_heads=2, sliding_window=16, initializer_range=0.3, **COMMON)
    ).eval()
    read: list[int] = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["input_ids"].shape[0])
        if kwargs["input_ids"].shape[1] > 1 else None, with_kwargs=True,
    )  # fmt: skip
    sampling = Sampling(max_new_tokens=12, temperature=1.0, stop_ids=tuple(range(30)), samples=3)
    together = generate(model, tokenizer, PROMPTS[:4], sampling, batch_size=6)
    assert read == [2, 2]
    alone = generate(model, tokenizer, PROMPTS[:4], sampling, batch_size=1)
    assert [answer.ids for answer in together] == [answer.ids for answer in alone]


def test_a_recurrent_model_reads_every_sample_by_itself(tokenizer):
    torch.manual_seed(0)
    model = MambaForCausalLM(
        MambaConfig(hidden_size=32, num_hidden_layers=2, state_size=8, initializer_range=0.3, **COMMON)
    ).eval()
    sampling = Sampling(max_new_tokens=10, temperature=1.0, stop_ids=tuple(range(30)), samples=2)
    prompts = ["Hi", "Lo", "Name it."]
    together = generate(model, tokenizer, prompts, sampling, batch_size=4)
    alone = generate(model, tokenizer, prompts, sampling, batch_size=1)
    assert [answer.ids for answer in together] == [answer.ids for answer in alone]


def test_a_surgery_that_is_told_of_the_first_pass_meets_the_same_rows_afterwards(tokenizer):
    """2 prompts of 2 samples in 3 rows: told of 3 and of 1, whose steps have as many rows or fewer."""
    seen: list[tuple[int, list[int] | None]] = []
    plain = tiny_llama()

    class Surgery(type(plain)):
        def forward(self, *args, prompt_length=None, **kwargs):
            told = None if prompt_length is None else prompt_length.tolist()
            seen.append((len(kwargs["input_ids"]), told))
            return super().forward(*args, **kwargs)

    model = Surgery(plain.config).eval()
    sampling = Sampling(max_new_tokens=3, samples=2)
    generate(
        model, tokenizer, [[1, 2, 3], [4, 5]], sampling, batch_size=3, batch_keys=("prompt_length",)
    )  # fmt: skip
    assert seen == [(3, [3, 3, 2]), (3, None), (3, None), (1, [2]), (1, None), (1, None)]
