"""What sampling cost, and what it remembers: an answer is generated once, whatever happens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from llmfw.core.errors import ResourceError
from llmfw.core.failpoints import _reached
from llmfw.core.generation import ScriptedPolicy
from llmfw.core.records import Completion
from llmfw.core.rounds import Ledger


class Killed(Exception):
    """Stands for a kill: nothing after it runs."""


class Letters:
    """A tokenizer of one token a letter."""

    chat_template = None
    bos_token_id = None

    def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) for letter in text]}


class Writer:
    """A policy that answers each prompt with itself and a mark, and writes down what it was asked."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.policy = ScriptedPolicy(self._answer, Letters())

    def _answer(self, prompts: Sequence[str]) -> list[str]:
        self.written += list(prompts)
        return [f"{prompt}!" for prompt in prompts]


def test_answers_are_counted_by_purpose(tmp_path: Path):
    """Two prompts with three answers of two letters each: 2, 6, 12; then one of each: 1, 1, 2."""
    ledger, writer = Ledger(tmp_path), Writer()
    with ledger.sampling(0):
        ledger.generate(writer.policy, ["a", "b"], purpose="draft", samples=3)
        ledger.generate(writer.policy, ["c"], purpose="guided")
    told = ledger.by_purpose()
    assert {name: {**row, "seconds": 0} for name, row in told.items()} == {
        "draft": {"prompts": 2, "samples": 6, "tokens": 12, "seconds": 0},
        "guided": {"prompts": 1, "samples": 1, "tokens": 2, "seconds": 0},
    }
    assert told["draft"]["seconds"] > 0
    assert json.loads((tmp_path / "ledger.json").read_text()) == told
    assert Ledger(tmp_path).by_purpose() == told, "another process reads the same"


def test_rounds_are_counted_apart_and_together(tmp_path: Path):
    ledger, writer = Ledger(tmp_path), Writer()
    for index in (0, 1):
        with ledger.sampling(index):
            ledger.generate(writer.policy, ["a"] * (index + 1), purpose="draft")
    assert [ledger.total(index)["samples"] for index in (0, 1)] == [1, 2]
    assert ledger.total()["samples"] == 3 and ledger.of("draft")["tokens"] == 6
    assert ledger.of("nothing")["tokens"] == 0


def test_no_prompts_cost_nothing_and_leave_no_line(tmp_path: Path):
    ledger = Ledger(tmp_path)
    with ledger.sampling(0):
        assert ledger.generate(Writer().policy, [], purpose="draft") == []
    assert ledger.by_purpose() == {}


def test_what_a_killed_round_has_generated_comes_again_without_being_generated(tmp_path: Path):
    """The kill comes after the first call; the second process generates the second call alone."""

    def killed() -> None:
        with (ledger := Ledger(tmp_path)).sampling(0):
            ledger.generate(Writer().policy, ["a", "b"], purpose="draft", samples=2)
            raise Killed

    with pytest.raises(Killed):
        killed()
    again = Writer()
    with (ledger := Ledger(tmp_path)).sampling(0):
        drafts = ledger.generate(again.policy, ["a", "b"], purpose="draft", samples=2)
        ledger.generate(again.policy, ["c"], purpose="guided")
    assert [answer.text for answer in drafts] == ["a!", "a!", "b!", "b!"]
    assert again.written == ["c"]
    assert (ledger.total()["samples"], ledger.total()["prompts"]) == (5, 3)


def test_a_kill_between_two_answers_costs_none_of_those_that_are_there(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("LLMFW_FAILPOINT", "loop.mid_generate:2:raise")
    _reached.clear()
    with pytest.raises(RuntimeError, match="loop.mid_generate"), (ledger := Ledger(tmp_path)).sampling(0):
        ledger.generate(Writer().policy, ["a", "b", "c"], purpose="draft")
    monkeypatch.delenv("LLMFW_FAILPOINT")
    again = Writer()
    with (ledger := Ledger(tmp_path)).sampling(0):
        answers = ledger.generate(again.policy, ["a", "b", "c"], purpose="draft")
    assert [answer.text for answer in answers] == ["a!", "b!", "c!"]
    assert again.written == ["c"] and ledger.total()["samples"] == 3


def test_tokens_that_an_endpoint_counts_are_counted_remembered_and_held_to_the_budget(tmp_path: Path):
    """Two answers of 7 tokens whose ids nobody told: 14 of a budget of 15, also in the next process."""

    class Counting:
        def generate(self, prompts, *, done, **_):
            answers = [
                Completion(text="x", ids=(), prompt_tokens=1, finish="stop", unseen=7) for _ in prompts
            ]
            for index, answer in enumerate(answers):
                done(index, answer)
            return answers

    for _ in range(2):
        with (ledger := Ledger(tmp_path, budget=15)).sampling(0):
            answers = ledger.generate(Counting(), ["a", "b"], purpose="draft")
        assert ledger.of("draft")["tokens"] == 14 and ledger.left == 1
        assert [answer.tokens for answer in answers] == [7, 7]


def test_equal_requests_are_different_calls_in_their_order(tmp_path: Path):
    """A sampler that asks the same twice gets two answers, and after a kill the same two."""
    numbers = iter(range(10))
    policy = ScriptedPolicy(lambda prompts: [str(next(numbers)) for _ in prompts])

    def twice() -> list[str]:
        with (ledger := Ledger(tmp_path)).sampling(0):
            return [ledger.generate(policy, ["a"], purpose="draft")[0].text for _ in range(2)]

    assert twice() == ["0", "1"] and twice() == ["0", "1"] and next(numbers) == 2


def test_a_line_that_a_kill_has_cut_never_was(tmp_path: Path):
    with (ledger := Ledger(tmp_path)).sampling(0):
        ledger.generate(Writer().policy, ["a", "b"], purpose="draft")
    file = tmp_path / "rounds" / "000" / "sampling.jsonl"
    file.write_bytes(file.read_bytes()[:-9])
    for _ in range(2):  # the second time the file is whole again
        again = Writer()
        with (ledger := Ledger(tmp_path)).sampling(0):
            answers = ledger.generate(again.policy, ["a", "b"], purpose="draft")
        assert [answer.text for answer in answers] == ["a!", "b!"]
    assert again.written == []


def test_other_requests_than_before_a_kill_are_told(tmp_path: Path, capsys):
    with (ledger := Ledger(tmp_path)).sampling(0):
        ledger.generate(Writer().policy, ["a", "b"], purpose="draft")
    with (ledger := Ledger(tmp_path)).sampling(0):
        ledger.generate(Writer().policy, ["other"], purpose="draft")
    assert "warning[SAMPLING-CHANGED] round 0: 2 answers" in capsys.readouterr().err


def test_a_value_is_made_once_a_round_and_is_json(tmp_path: Path):
    made: list[int] = []

    def make() -> tuple[int, ...]:
        made.append(1)
        return (1, 2)

    for _ in range(2):
        with (ledger := Ledger(tmp_path)).sampling(0):
            assert ledger.once("verdicts", make) == [1, 2]
    assert len(made) == 1


def test_what_generate_does_not_see_is_counted_by_hand(tmp_path: Path):
    ledger = Ledger(tmp_path)
    with ledger.sampling(0):
        ledger.count("games", samples=3)
        with ledger.timed("games"):
            pass
    assert ledger.of("games")["samples"] == 3 and ledger.of("games")["seconds"] >= 0


def test_outside_of_a_rounds_sampling_nothing_is_generated(tmp_path: Path):
    with pytest.raises(RuntimeError, match="inside the sampler's next"):
        Ledger(tmp_path).generate(Writer().policy, ["a"], purpose="draft")


def test_a_budget_that_just_suffices_is_no_error(tmp_path: Path):
    """Two answers of two tokens each, four allowed; asked again after a kill they're there. A fifth isn't."""
    for _ in range(2):
        with (ledger := Ledger(tmp_path, budget=4)).sampling(0):
            answers = ledger.generate(Writer().policy, ["a", "b"], purpose="draft")
            assert [answer.text for answer in answers] == ["a!", "b!"] and ledger.left == 0
            with pytest.raises(ResourceError, match="4 tokens, all that generation.budget allows"):
                ledger.generate(Writer().policy, ["c"], purpose="draft")


def test_half_of_a_character_is_remembered_as_it_is(tmp_path: Path):
    """Byte-level tokenizers may end an answer between two halves of a character."""
    said = "x\ud83d"
    for _ in range(2):
        policy = ScriptedPolicy(lambda prompts: [said for _ in prompts])
        with (ledger := Ledger(tmp_path)).sampling(0):
            (answer,) = ledger.generate(policy, ["a"], purpose="draft")
            assert answer.text == said and ledger.once("said", lambda: {"said": said}) == {"said": said}


def test_what_is_left_of_a_budget(tmp_path: Path):
    ledger = Ledger(tmp_path, budget=10)
    with ledger.sampling(0):
        ledger.generate(Writer().policy, ["a", "b"], purpose="draft")
        assert ledger.left == 6
    assert Ledger(tmp_path).left is None
