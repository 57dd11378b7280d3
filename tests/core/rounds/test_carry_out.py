"""Rounds of a sampler: each phase is remembered, so that a kill repeats or loses nothing."""

from __future__ import annotations

import math
import random
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from llmfw.core.errors import DataError, PluginError
from llmfw.core.generation import ScriptedPolicy
from llmfw.core.records import RolloutSampler, Round
from llmfw.core.rounds import Ledger, RoundState, run_rounds
from llmfw.core.rounds.ledger import BudgetSpent


class Killed(Exception):
    """Stands for a kill: nothing after it runs."""


class Scripted:
    """A sampler of two rounds, a policy and a trainer that write down what they were asked for."""

    def __init__(self, kill_at: str | None = None) -> None:
        self.asked: list[tuple[int, str]] = []
        self.trained: list[tuple[int, str]] = []
        self.kept: list[str] = []
        self.kill_at = kill_at

    def next(self, index, rows, policy, services, ledger):
        if index == 2:
            return None
        self.asked.append((index, policy))
        ledger.count("draft", prompts=len(rows), samples=2, tokens=10)
        if self.kill_at == f"sample{index}":
            raise Killed
        return Round(records=[{"prompt": "p", "completion": f"c{index}"}], start="last", keep_as=f"m{index}")

    def train(self, state: RoundState, weights: Path | None) -> None:
        if self.kill_at == f"train{state.index}":
            raise Killed
        self.trained.append((state.index, weights.parent.name if weights else "base"))
        state.final.mkdir()

    def go(self, folder: Path) -> list[RoundState]:
        return run_rounds(
            RolloutSampler(name="scripted", next=self.next), folder,
            seed=7, rows=[{"prompt": "p"}], services=lambda protocol: None,
            policy=lambda weights: weights.parent.name if weights else "base",
            train=self.train, keep=lambda name, final: self.kept.append(name),
            ledger=Ledger(folder),
        )  # fmt: skip


def test_a_rounds_random_numbers_are_its_own_whatever_came_before_it(tmp_path: Path):
    """A sampler may draw from the global generators: a round that is sampled again is the same."""

    def drawn(folder: Path, kill_at: str = "") -> list[float]:
        script, numbers = Scripted(kill_at), []
        inner = script.next

        def next_round(index, *more):
            numbers.append(random.random())
            return inner(index, *more)

        script.next = next_round
        random.random()
        folder.mkdir(exist_ok=True)
        with nullcontext() if not kill_at else pytest.raises(Killed):
            script.go(folder)
        return numbers

    whole = drawn(tmp_path / "whole")
    assert len(set(whole[:2])) == 2, "rounds differ"
    drawn(tmp_path / "killed", kill_at="sample1")
    assert drawn(tmp_path / "killed")[0] == whole[1]


def test_each_round_samples_from_the_last_result_and_trains_from_where_it_says(tmp_path: Path):
    script = Scripted()
    states = script.go(tmp_path)
    assert script.asked == [(0, "base"), (1, "000")]
    assert script.trained == [(0, "base"), (1, "000")]
    assert script.kept == ["m0", "m1"] and [state.done for state in states] == [True, True]
    assert Ledger(tmp_path).total()["tokens"] == 20


@pytest.mark.parametrize(
    ("kill_at", "asked_again", "trained_again"),
    [
        ("train0", [(1, "000")], [(0, "base"), (1, "000")]),
        ("sample1", [(1, "000")], [(1, "000")]),
        ("train1", [], [(1, "000")]),
    ],
)
def test_after_a_kill_only_the_phase_that_was_cut_is_done_again(
    tmp_path: Path, kill_at, asked_again, trained_again
):
    with pytest.raises(Killed):
        Scripted(kill_at).go(tmp_path)
    script = Scripted()
    script.go(tmp_path)
    assert (script.asked, script.trained) == (asked_again, trained_again)


def test_a_finished_run_of_rounds_does_nothing_when_it_is_started_again(tmp_path: Path):
    Scripted().go(tmp_path)
    script = Scripted()
    script.go(tmp_path)
    assert script.asked == [] and script.trained == [] and script.kept == ["m0", "m1"]


def test_a_round_without_records_is_an_error_that_names_the_sampler(tmp_path: Path):
    sampler = RolloutSampler(name="hollow", next=lambda *given: Round(records=[]))
    with pytest.raises(DataError, match="'hollow' has no records"):
        run_rounds(
            sampler, tmp_path, seed=0, rows=[], services=None, policy=lambda w: None, train=None, keep=None,
            ledger=Ledger(tmp_path),
        )  # fmt: skip


def test_a_sampler_that_returns_something_else_is_named(tmp_path: Path):
    sampler = RolloutSampler(name="odd", next=lambda *given: [{"prompt": "p"}])
    with pytest.raises(PluginError, match="'odd' returned list"):
        run_rounds(
            sampler, tmp_path, seed=0, rows=[], services=None, policy=lambda w: None, train=None, keep=None,
            ledger=Ledger(tmp_path),
        )  # fmt: skip


def test_a_round_may_start_from_what_an_earlier_one_was_kept_as(tmp_path: Path):
    script, inner = Scripted(), None
    inner = script.next

    def next_round(index, *more):
        found = inner(index, *more)
        return found if found is None or index == 0 else Round(records=found.records, start="m0")

    script.next = next_round
    script.go(tmp_path)
    assert script.trained == [(0, "base"), (1, "000")]


def test_a_start_that_nobody_kept_is_refused_with_those_that_there_are(tmp_path: Path):
    script = Scripted()
    script.next = lambda *given: Round(records=[{"prompt": "p", "completion": "c"}], start="warm")
    with pytest.raises(PluginError, match="starts round 0 from 'warm'.*use one of base, last"):
        script.go(tmp_path)


@pytest.mark.parametrize("name", ["base", "last"])
def test_a_name_that_means_other_weights_is_refused_for_a_round(tmp_path: Path, name: str):
    script = Scripted()
    script.next = lambda *given: Round(records=[{"prompt": "p", "completion": "c"}], keep_as=name)
    with pytest.raises(PluginError, match=f"keeps round 0 as '{name}'.*another name"):
        script.go(tmp_path)
    assert script.trained == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"records": [{"id": "a"}, {"id": "b", "score": float("nan")}]}, "record 'b'"),
        ({"records": [{"id": "a"}, {"seen": {1, 2}}]}, "record 1"),
        ({"records": [{"id": "a"}], "notes": {"own": {1}}}, "notes"),
        ({"records": [{"id": "a"}], "tables": {"t": [{"x": float("inf")}]}}, "table 't'"),
    ],
)
def test_what_is_no_json_is_refused_by_name(tmp_path: Path, given: dict[str, Any], said: str):
    script = Scripted()
    script.next = lambda *more: Round(**given)
    with pytest.raises(PluginError, match=f"gave {said}.*can't be kept as json"):
        script.go(tmp_path)
    assert not list(tmp_path.rglob("round.json"))


def test_a_note_may_be_no_number(tmp_path: Path):
    script = Scripted()
    record = {"prompt": "p", "completion": "c"}
    script.next = lambda index, *more: None if index else Round(records=[record], notes={"m": float("nan")})
    (state,) = script.go(tmp_path)
    assert math.isnan(state.notes["m"])


def test_a_ledger_counts_a_round_that_is_sampled_again_once(tmp_path: Path):
    with pytest.raises(Killed):
        Scripted("sample1").go(tmp_path)
    Scripted().go(tmp_path)
    assert Ledger(tmp_path).total() == {"prompts": 2, "samples": 4, "tokens": 20, "seconds": 0}


def test_records_that_name_their_problems_are_told_by_coverage(tmp_path: Path):
    script = Scripted()
    record = {"prompt": "p", "completion": "c", "problem": "0"}
    script.next = lambda index, *more: Round(records=[record] * 3, notes={"own": 1.0}) if index == 0 else None
    (state,) = script.go(tmp_path)
    assert state.notes == {"own": 1.0, "records": 3, "problems": 1, "coverage": 1.0, "gini": 0.0}
    assert state.tables == {"kept": [{"level": "", "records": 3, "problems": 1}]}


def spending(tokens: int):
    """A sampler whose every round asks for an answer of so many tokens."""
    policy = ScriptedPolicy(lambda prompts: ["x" * tokens for _ in prompts], Letters())

    def next_round(index, rows, source, services, ledger):
        (answer,) = ledger.generate(policy, ["p"], purpose="draft")
        return Round(records=[{"prompt": "p", "completion": answer.text}])

    return next_round


class Letters:
    """A tokenizer of one token a letter."""

    chat_template = None
    bos_token_id = None

    def __call__(self, text, **_):
        return {"input_ids": [ord(letter) for letter in text]}


def test_a_budget_ends_the_rounds_and_keeps_those_that_were_trained(tmp_path: Path, capsys):
    """25 tokens allow two rounds of 10; the third would pass them."""
    script = Scripted()
    script.next = spending(10)
    states = run_rounds(
        RolloutSampler(name="spender", next=script.next), tmp_path, seed=7, rows=[], services=None,
        policy=lambda weights: None, train=script.train, keep=lambda *_: None,
        ledger=Ledger(tmp_path, budget=25),
    )  # fmt: skip
    assert len(states) == 2
    assert "25 tokens, all that generation.budget allows: 2 rounds were trained" in capsys.readouterr().err


def test_a_budget_too_small_for_one_round_is_an_error(tmp_path: Path):
    with pytest.raises(BudgetSpent, match="raise it, or sample less"):
        run_rounds(
            RolloutSampler(name="spender", next=spending(10)), tmp_path, seed=7, rows=[], services=None,
            policy=lambda weights: None, train=None, keep=None, ledger=Ledger(tmp_path, budget=9),
        )  # fmt: skip
