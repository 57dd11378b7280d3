"""Answers that are handed over one by one, and calls that go on where a former one was cut off."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from llmfw.core.errors import UsageError
from llmfw.core.generation import GeneratingPolicy, Sampling, ScriptedPolicy, generate
from llmfw.core.models.policy import LocalPolicy
from llmfw.core.records import CacheFactory, Completion, Decoder
from tests.core.generation.test_endpoint import _policy
from tests.toys.server import chat, serving

PROMPTS = ["Name a river.", "Hi", "What is the longest word that you know?", "2+2="]
SAMPLING = Sampling(max_new_tokens=16, temperature=1.0, stop_ids=tuple(range(40)), samples=3, logps=True)


class CutOffError(Exception):
    """The kill."""


class Journal:
    """Answers in the order in which they came; after ``most`` of them the power fails."""

    def __init__(self, most: int) -> None:
        self.most, self.answers = most, {}

    def __call__(self, index: int, answer: Completion) -> None:
        assert index not in self.answers
        self.answers[index] = answer
        if len(self.answers) == self.most:
            raise CutOffError


@pytest.mark.parametrize("cache", [None, "of a plugin"])
def test_a_call_that_was_cut_off_goes_on_to_the_same_answers(cache: str | None, model, tokenizer):
    from transformers import DynamicCache

    factory = cache and CacheFactory(
        name="own", build=lambda config: DynamicCache(config=config), batched=True
    )
    settings = {"batch_size": 3, "cache": factory}
    whole = generate(model, tokenizer, PROMPTS, SAMPLING, **settings)
    first, second, seen = Journal(5), Journal(99), set()
    with pytest.raises(CutOffError):
        generate(model, tokenizer, PROMPTS, SAMPLING, done=first, **settings)
    resumed = generate(
        model, tokenizer, PROMPTS, SAMPLING, known=first.answers, done=second,
        watch=lambda index, token: seen.add(index), **settings,
    )  # fmt: skip
    assert [answer.ids for answer in resumed] == [answer.ids for answer in whole]
    for one, other in zip(resumed, whole, strict=True):
        assert one.logps == pytest.approx(other.logps, abs=1e-5)
    assert len(first.answers) == 5 and set(second.answers) == seen == set(range(12)) - set(first.answers)
    assert {index: resumed[index] for index in second.answers} == second.answers
    assert all(resumed[index] is answer for index, answer in first.answers.items())


def test_answers_come_as_soon_as_they_have_ended_and_not_with_their_batch(model, tokenizer):
    """The short ones are handed over while the model still writes the longest."""
    free = generate(model, tokenizer, PROMPTS, Sampling(max_new_tokens=30))
    ends = tuple(free[row].ids[3 + 4 * row] for row in range(3))
    events: list[tuple[str, int]] = []
    generate(
        model, tokenizer, PROMPTS, Sampling(max_new_tokens=30, stop_ids=ends), batch_size=4,
        watch=lambda index, token: events.append(("token", index)),
        done=lambda index, answer: events.append(("done", index)),
    )  # fmt: skip
    for index in range(4):
        own = [event for event in events if event[1] == index]
        assert own[-1] == ("done", index) and own.count(("done", index)) == 1
    assert events.index(("done", 0)) < len(events) - 4 and events[-1][0] == "done"


def test_a_decoders_answers_are_handed_over_and_kept(model, tokenizer):
    asked: list[int] = []

    def answer(policy, input_ids, sampling, cache):
        asked.append(int(input_ids[0, 0]))
        return [int(input_ids[0, 0]) + 1]

    decoder = Decoder(name="next", generate=answer)
    journal = Journal(2)
    with pytest.raises(CutOffError):
        generate(model, tokenizer, [[5], [6], [7]], Sampling(), decoder=decoder, done=journal)
    found = generate(model, tokenizer, [[5], [6], [7]], Sampling(), decoder=decoder, known=journal.answers)
    assert asked == [5, 6, 7] and [one.ids for one in found] == [(6,), (7,), (8,)]


def test_what_is_known_is_neither_generated_nor_counted(model, tokenizer):
    policy = GeneratingPolicy(LocalPolicy(model), tokenizer, Sampling(max_new_tokens=4), batch_size=2)
    given = {1: Completion(text="x", ids=(1,) * 50, prompt_tokens=70, finish="stop")}
    answers = policy.generate(["a", "b", "c"], known=given)
    assert answers[1] is given[1] and policy.usage.generated_tokens == 8
    assert policy.usage.prompt_tokens == answers[0].prompt_tokens + answers[2].prompt_tokens
    assert policy.generate(["a", "b", "c"], known=dict(enumerate(answers))) == answers
    assert policy.usage.generated_tokens == 8


@pytest.mark.parametrize("index", [-1, 4])
def test_a_known_answer_to_nothing_that_is_asked_is_refused(index: int, model, tokenizer):
    given = {index: Completion(text="x", ids=(1,), prompt_tokens=1, finish="stop")}
    policy = GeneratingPolicy(LocalPolicy(model), tokenizer, Sampling(max_new_tokens=2))
    for asked in (policy, ScriptedPolicy(list)):
        with pytest.raises(UsageError, match=f"answer {index} is said to be known, of 4"):
            asked.generate(["a", "b"], samples=2, known=given)


def test_a_script_is_asked_for_the_missing_answers_alone(tokenizer):
    calls: list[list[str]] = []

    def answer(prompts):
        calls.append(list(prompts))
        return [f"{prompt}!" for prompt in prompts]

    policy, journal = ScriptedPolicy(answer, tokenizer), Journal(99)
    given = {1: Completion(text="known", ids=(), prompt_tokens=0, finish="stop")}
    answers = policy.generate(["a", "b"], samples=2, known=given, done=journal)
    assert calls == [["a", "b", "b"]] and [one.text for one in answers] == ["a!", "known", "b!", "b!"]
    assert sorted(journal.answers) == [0, 2, 3] and policy.usage.generated_tokens == 6
    policy.generate(["a"], known={0: given[1]})
    assert len(calls) == 1


def test_a_servers_answers_are_handed_over_as_they_come():
    """The first prompt's answer waits for the second's to be handed over."""
    seen: list[str] = []
    second = threading.Event()

    def answer(path, body, headers):
        prompt = body["messages"][0]["content"]
        seen.append(prompt)
        if prompt == "a":
            assert second.wait(10)
        return chat(f"{prompt}!")

    order: list[int] = []

    def done(index: int, completion: Completion) -> None:
        order.append(index)
        second.set()

    with serving(answer) as url:
        policy = _policy(url)
        given = {2: Completion(text="known", ids=(), prompt_tokens=3, finish="stop")}
        answers = policy.generate(["a", "b", "c"], known=given, done=done)
    assert [one.text for one in answers] == ["a!", "b!", "known"] and order == [1, 0]
    assert sorted(seen) == ["a", "b"]
    asked = SimpleNamespace(**vars(policy.usage))
    assert asked.calls == 1 and asked.prompt_tokens == sum(one.prompt_tokens for one in answers[:2])
