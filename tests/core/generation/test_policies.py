"""Policies that answer, and the report of answers' lengths."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch

from llmfw.core.errors import PluginError, UsageError
from llmfw.core.generation import (
    GeneratingPolicy,
    Sampling,
    ScriptedPolicy,
    generate,
    generated_length,
)
from llmfw.core.models.policy import LocalPolicy
from llmfw.core.records import Completion, Decoder


@pytest.fixture
def policy(model, tokenizer) -> GeneratingPolicy:
    return GeneratingPolicy(
        LocalPolicy(model, {"side": torch.nn.Linear(1, 1)}),
        tokenizer,
        Sampling(max_new_tokens=6, stop_ids=(259,)),
        batch_size=2,
    )


def test_a_policy_answers_with_its_own_settings_and_those_of_the_call(policy, model, tokenizer):
    assert policy.generate(["Hi"]) == generate(model, tokenizer, ["Hi"], policy.sampling)
    longer = policy.generate(["Hi"], max_new_tokens=9, temperature=1.0, seed=4)
    assert longer == generate(
        model, tokenizer, ["Hi"], policy.sampling.but(max_new_tokens=9, temperature=1.0, seed=4)
    )
    with pytest.raises(UsageError, match="no setting called max_tokens"):
        policy.generate(["Hi"], max_tokens=9)


def test_a_policy_hands_on_what_the_local_one_has(policy):
    assert policy.module is policy._policy.module
    assert list(policy.companions) == ["side"]
    assert policy.batch_keys == ()
    with pytest.raises(AttributeError):
        policy.nothing_of_the_kind  # noqa: B018
    assert copy.copy(policy).module is policy.module


def test_a_policy_counts_the_tokens_that_it_reads_and_writes(policy):
    answers = policy.generate(["Hi", "Ho!"], samples=2)
    assert policy.usage.calls == 1
    assert policy.usage.prompt_tokens == sum(answer.prompt_tokens for answer in answers)
    assert policy.usage.generated_tokens == sum(len(answer.ids) for answer in answers) > 0


def test_the_local_policy_alone_refuses_to_generate(model):
    with pytest.raises(NotImplementedError):
        LocalPolicy(model).generate(["Hi"])


def test_a_decoder_receives_the_policy_itself(policy):
    seen = []

    def answer(asked, input_ids, sampling, cache):
        seen.append(asked)
        return [64]

    policy.decoder = Decoder(name="one", generate=answer)
    assert policy.generate(["Hi"])[0].ids == (64,)
    assert seen == [policy]


def test_an_embedding_is_the_mean_of_the_last_states_and_independent_of_its_neighbours(
    policy, model, tokenizer
):
    model.train()
    embedded = policy.embed(["one text", "another, longer"])
    assert embedded.shape == (2, 32) and embedded.dtype == torch.float32 and not embedded.requires_grad
    assert model.training
    assert torch.equal(embedded[:1], policy.embed(["one text"]))
    with torch.no_grad():
        wanted = (
            model.eval()
            .model(torch.tensor([tokenizer("one text")["input_ids"]]))
            .last_hidden_state[0]
            .mean(0)
        )
    assert torch.allclose(embedded[0], wanted, atol=1e-6)


def test_a_script_answers_each_prompt_as_often_as_asked(tokenizer):
    policy = ScriptedPolicy(lambda prompts: [f"{prompt}!" for prompt in prompts], tokenizer)
    answers = policy.generate(["a", "b"], samples=2, temperature=1.0)
    assert [answer.text for answer in answers] == ["a!", "a!", "b!", "b!"]
    assert answers[0].ids == tuple(tokenizer("a!")["input_ids"])
    assert policy.usage.generated_tokens == 8


def test_a_script_without_a_tokenizer_counts_no_tokens():
    answer = ScriptedPolicy(lambda prompts: ["x"] * len(prompts)).generate(["a"])
    assert answer == [Completion(text="x", ids=(), prompt_tokens=0, finish="stop")]


def test_a_script_that_leaves_a_prompt_unanswered_is_refused():
    with pytest.raises(PluginError, match="answered 2 prompts with 1 texts"):
        ScriptedPolicy(lambda prompts: ["x"]).generate(["a", "b"])


def test_a_script_says_that_it_has_no_model():
    policy = ScriptedPolicy(list)
    for ask in (
        lambda: policy.module,
        lambda: policy.logps(None),
        lambda: policy.hidden_states(None, 0),
        lambda: policy.embed([]),
    ):
        with pytest.raises(NotImplementedError):
            ask()


def canned(lengths: list[int], limit: int) -> SimpleNamespace:
    def answer(prompts, **sampling):
        return [
            Completion(text="x" * n, ids=(1,) * n, prompt_tokens=1, finish="length" if n == limit else "stop")
            for n in lengths
        ]

    return SimpleNamespace(generate=answer)


def test_the_length_report_counts_tokens_and_cut_off_answers():
    # lengths 2, 3, 10, 10: mean 25/4 = 6.25, median (3 + 10) / 2 = 6.5, two of four at the limit
    result = generated_length(
        canned([2, 3, 10, 10], 10), ["a", "b", [{"role": "user", "content": "c"}], [1, 2]], show=4
    )
    assert result.metrics == {
        "generated/length_mean": 6.25,
        "generated/length_median": 6.5,
        "generated/limit_share": 0.5,
        "generated/n": 4.0,
    }
    assert [row["prompt"] for row in result.tables["generated"]] == ["a", "b", "c", "2 tokens"]
    assert [row["tokens"] for row in result.tables["generated"]] == [2, 3, 10, 10]


def test_the_length_report_asks_with_the_given_sampling_and_the_policys_stop_ids(policy):
    result = generated_length(policy, ["Hi", "Ho"], Sampling(max_new_tokens=3), name="before", show=1)
    assert result.metrics["before/length_mean"] == 3.0 and len(result.tables["before"]) == 1
    assert policy.sampling.stop_ids == (259,)


def test_the_length_report_of_no_prompts_claims_no_mean():
    assert generated_length(canned([], 1), []).metrics == {"generated/n": 0.0}
