"""Oracle 9 and the scripted world: exact flags, the planner, perturbations."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import islice, pairwise
from typing import Any

import pytest

from llmfw.plugins.agentrefine.environments import names_of, open_suites
from llmfw.plugins.agentrefine.environments.renamed import PERTURBATIONS, Renamed
from llmfw.plugins.agentrefine.environments.scripted import Scripted
from llmfw.plugins.agentrefine.records import EnvironmentProblem, Errors, TrajectoryError
from llmfw.plugins.agentrefine.rows import Options, ScriptedWorld, held_out, houses, options_of
from llmfw.plugins.agentrefine.world.house import Goal, House, step
from llmfw.plugins.agentrefine.world.names import CANONICAL, HELD_OUT, VARIED
from llmfw.plugins.agentrefine.world.planner import mistake, next_move, play

NAMES = [*PERTURBATIONS]
HOUSE = House(
    goal=Goal(item="cup 1", box="bin 1", treat="wash"), room="den 1",
    boxes={"box 1": "den 1", "bin 1": "hall 1"}, tools={"sink 1": "hall 1"},
    items={"cup 1": "box 1", "pen 1": "bin 1"}, shut=frozenset({"box 1"}),
)  # fmt: skip
PARAMETER, PLACE, LOGIC = Errors(parameter=True), Errors(place=True), Errors(logic=True)


def some(count: int, names: Any = CANONICAL, **options: Any) -> list[House]:
    return [house for house, _ in islice(houses(Options(**options), "train", names), count)]


@pytest.mark.parametrize(
    ("action", "errors", "said"),
    [
        ("fly", PARAMETER, "No: unknown"),
        ("open box 9", PARAMETER, "No: unknown"),
        ("Open box 1", PARAMETER, "No: unknown"),
        ("open bin 1", PLACE, "No: bin 1 not here"),
        ("take cup 1 from box 1", LOGIC, "No: box 1 shut"),
        ("take pen 1 from bin 1", PLACE, "No: bin 1 not here"),
        ("put cup 1 in bin 1", PLACE, "No: bin 1 not here"),
        ("wash cup 1 with sink 1", PLACE, "No: sink 1 not here"),
        ("go to den 1", LOGIC, "No: already in den 1"),
        ("go to attic 1", PLACE, "No: no attic 1 in this house"),
        ("shut box 1", LOGIC, "No: box 1 shut"),
        ("open box 1", Errors(), "box 1 open"),
        ("go to hall 1", Errors(), "hall 1: bin 1 open, sink 1"),
        ("look", Errors(), "den 1: box 1 shut"),
        ("bag", Errors(), "in hand: nothing"),
    ],
)
def test_each_action_has_the_flag_of_what_is_wrong_with_it(action: str, errors: Errors, said: str) -> None:
    found = step(HOUSE, action)
    assert (found.errors, found.observation) == (errors, said)
    assert not found.errors.any or found.house == HOUSE, "a failed action changes nothing"


def test_progress_counts_sub_goals_and_is_one_at_the_end() -> None:
    """By hand: taken, treated, carried of 3 + 1 parts; the last action fulfils the goal."""
    house, seen = HOUSE, []
    for action in (
        "open box 1",
        "take cup 1 from box 1",
        "go to hall 1",
        "heat cup 1 with sink 1",
        "wash cup 1 with sink 1",
        "go to den 1",
        "go to hall 1",
        "put cup 1 in bin 1",
    ):
        house = step(house, action).house
        seen.append(house.progress)
    assert seen == [0, 0.25, 0.25, 0.25, 0.5, 0.5, 0.75, 1.0] and house.done


def test_an_unwashed_cup_does_not_fulfil_the_goal() -> None:
    house = HOUSE
    for action in ("open box 1", "take cup 1 from box 1", "go to hall 1", "put cup 1 in bin 1"):
        house = step(house, action).house
    assert house.items["cup 1"] == "bin 1" and not house.done and house.progress < 1


@pytest.mark.parametrize("names", [CANONICAL, HELD_OUT])
def test_the_planner_reaches_every_goal_and_its_mistakes_are_mistakes(names: Any) -> None:
    for at, house in enumerate(some(60, names, treats=1.0)):
        draw, steps = random.Random(at), 0
        while not house.done:
            wrong = mistake(house, draw)
            assert step(house, wrong.action).errors.any
            found = step(house, next_move(house).action)
            assert not found.errors.any
            house, steps = found.house, steps + 1
        assert steps <= 9


def test_without_errors_the_planner_makes_none_and_with_them_no_two_in_a_row() -> None:
    for at, house in enumerate(some(40)):
        clean = play(house, random.Random(at), error_rate=0.0, least=0)
        assert not any(turn.errors.any for turn in clean.turns) and clean.turns[-1].completed
        flags = [turn.errors.any for turn in play(house, random.Random(at), error_rate=0.9).turns[1::2]]
        assert sum(flags) >= 2 and not any(one and other for one, other in pairwise(flags))


@pytest.mark.parametrize("name", NAMES)
def test_oracle_9_decoding_undoes_encoding_on_every_admissible_action(name: str) -> None:
    renamer = PERTURBATIONS[name]
    tried = changed = 0
    for house in some(15, treats=1.0):
        while not house.done:
            actions = Scripted(house).admissible()
            encoded = [renamer.encode(action) for action in actions]
            assert [renamer.decode(action) for action in encoded] == actions
            assert len(set(encoded)) == len(actions)
            tried, changed = tried + len(actions), changed + sum(a != b for a, b in zip(actions, encoded))
            house = step(house, next_move(house).action).house
    assert tried > 200 and (changed > 0) == (name not in ("original", "P5"))


@pytest.mark.parametrize("name", NAMES)
def test_oracle_9_a_scripted_player_succeeds_behind_every_perturbation(name: str) -> None:
    for house in some(15, treats=1.0):
        inner = Scripted(house)
        world = Renamed(inner, PERTURBATIONS[name])
        told, done, turns = world.reset(0), False, 0
        assert (told != house.instruction()) == (name != "original")
        while not done and turns < 12:
            found = world.step(PERTURBATIONS[name].encode(inner.oracle()[1]))
            assert not found.errors.any
            done, turns = found.done, turns + 1
        assert done and found.progress == 1.0


@pytest.mark.parametrize("name", ["P2", "P3", "P4"])
def test_the_old_words_are_unknown_behind_a_perturbation(name: str) -> None:
    opened = replace(HOUSE, shut=frozenset())
    world = Renamed(Scripted(opened), PERTURBATIONS[name])
    old = {"P2": "go to hall 1", "P3": "take cup 1 from box 1", "P4": "take cup 1 from box 1"}[name]
    assert world.step(old).errors == PARAMETER
    assert not world.step(PERTURBATIONS[name].encode(old)).errors.any


def test_perturbed_words_by_hand() -> None:
    told = {name: renamer.encode("take cup 1 from box 1") for name, renamer in PERTURBATIONS.items()}
    assert told["P3"] == "from box 1 take cup 1" and told["P4"] == "take cup1 from box1"
    assert PERTURBATIONS["P1"].encode("wash cup 1 with sink 1") == "wash cup 1 using sink 1"
    assert PERTURBATIONS["P2"].encode("go to den 1") == "move to den 1"
    listed = HOUSE.instruction()
    assert (
        "Actions: go to R, open B, shut B, take I from B, put I in B, wash I with T, heat I with T" in listed
    )
    assert "move to R" in PERTURBATIONS["P2"].rewrite(listed)
    assert "from B take I, put" in PERTURBATIONS["P3"].rewrite(listed)
    assert "heat I using T" in PERTURBATIONS["P1"].rewrite(listed)


def test_held_out_words_are_never_trained_and_held_out_houses_neither() -> None:
    trained = {template for templates in VARIED.values() for template in templates} | set(CANONICAL.values())
    assert not trained & set(HELD_OUT.values())
    assert not any(held_out(house) for house in some(30))
    assert all(held_out(house) for house, _ in islice(houses(Options(), "validation"), 10))
    assert all(held_out(house) for house, _ in islice(houses(Options(), "episodes", HELD_OUT), 10))


def test_rows_are_the_same_whenever_asked_and_start_with_the_same_ones_for_any_count() -> None:
    few, many = ScriptedWorld(Options(train=5)), ScriptedWorld(Options(train=9))
    assert list(few.rows("train")) == list(few.rows("train")) == list(many.rows("train"))[:5]
    assert all(row["meta"]["errors"] >= 2 for row in many.rows("train"))


@pytest.mark.parametrize(
    ("told", "said"),
    [({"choice": 2}, "rooms: 3 of 2 names"), ({"trian": 3}, "no option 'trian'"),
     ({"train": 0}, "out of range"), ({"error_rate": 1.5}, "out of range"),
     ({"rooms": 2.5}, "out of range"), ({"names": "all"}, "say fixed or varied"), ({"train": True}, "range")],
)  # fmt: skip
def test_a_wrong_option_is_one_clear_line(told: dict[str, Any], said: str) -> None:
    with pytest.raises(TrajectoryError, match=rf"error\[DATA-OPTION\] data.options.*{said}"):
        options_of(told)


@pytest.mark.parametrize("name", ["held-in", "scienceworld", "babyai:", "held_in:x"])
def test_an_unknown_environment_is_one_clear_line(name: str) -> None:
    with pytest.raises(EnvironmentProblem, match=r"error\[ENVIRONMENT\].*is no environment; use held_in"):
        names_of(name)


def test_suites_have_the_names_and_episodes_that_were_asked_for() -> None:
    found = open_suites("held_in, held_out,perturbed,forced", 3, Options())
    assert [suite.name for suite in found] == [
        "held_in", "held_out", *(f"perturbed/{name}" for name in NAMES), "forced",
    ]  # fmt: skip
    assert all(len(suite.worlds) == 3 for suite in found)
