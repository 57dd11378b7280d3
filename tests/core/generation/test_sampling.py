"""Settings of a call, the tokens that end an answer, and the seeds of requests."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from llmfw.core.errors import UsageError
from llmfw.core.generation import Sampling, end_of_turn_ids, from_config, request_seed
from llmfw.core.schema import GenerationConfig
from tests.core.generation.conftest import byte_tokenizer


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_new_tokens": 0},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"samples": 0},
        {"first": -1},
        {"stop": ("",)},
    ],
)
def test_a_setting_out_of_range_is_named(wrong: dict):
    with pytest.raises(UsageError, match=f"generation.{next(iter(wrong))}"):
        Sampling(**wrong)


def test_an_unknown_setting_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match=r"no setting called temprature.*temperature"):
        Sampling().but(temprature=1.0)


def test_one_stop_string_and_lists_become_tuples():
    assert Sampling(stop="ab").stop == ("ab",)
    assert Sampling(stop=["a"], stop_ids=[1, 2]) == Sampling(stop=("a",), stop_ids=(1, 2))


def test_the_templates_end_of_turn_ends_an_answer_beside_the_eos(tokenizer):
    assert end_of_turn_ids(tokenizer) == (257, 259)


def test_a_template_that_ends_turns_with_plain_text_adds_no_token():
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    assert end_of_turn_ids(byte_tokenizer(template)) == (257,)


def test_a_template_that_strips_and_a_generation_config_are_heard():
    template = "{% for m in messages %}{{ m.content | trim }}<|start|>{% endfor %}"
    assert end_of_turn_ids(byte_tokenizer(template), SimpleNamespace(eos_token_id=[259, 256])) == (
        256,
        257,
        258,
        259,
    )


def test_a_runs_settings_become_a_sampling(tokenizer):
    config = GenerationConfig(
        max_new_tokens=7, temperature=0.5, top_p=0.9, top_k=3, stop=["\n\n", "<|start|>"]
    )
    wanted = Sampling(
        max_new_tokens=7,
        temperature=0.5,
        top_p=0.9,
        top_k=3,
        stop=("\n\n",),
        stop_ids=(257, 258, 259),
        seed=11,
    )  # the special token among the stop strings has no text, so it's found by its id
    assert from_config(config, tokenizer, 11) == wanted


def test_request_seeds_are_fixed_and_unlike():
    # fixed: a change would change every sampled answer of every recorded run
    assert request_seed(0, 0, 0) == 7967228347593282864
    seeds = {
        request_seed(seed, name, sample) for seed in (0, 1) for name in (0, 1, "a", "b") for sample in (0, 1)
    }
    assert len(seeds) == 16 and all(0 <= seed < 2**63 for seed in seeds)
    assert request_seed(1, 11, 0) != request_seed(11, 1, 0)
