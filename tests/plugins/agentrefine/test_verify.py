"""Oracles 7 and 8: what of a trajectory holds, and which action is which."""

from __future__ import annotations

import random
from itertools import islice
from typing import Any

import pytest

from llmfw.plugins.agentrefine.actions import every, faults, match
from llmfw.plugins.agentrefine.records import (
    Action,
    Script,
    TrajectoryError,
    script_json,
    script_of,
    turn_json,
    turn_of,
)
from llmfw.plugins.agentrefine.rows import Options, houses, played_in
from llmfw.plugins.agentrefine.verify import next_prefix, read_turns, verify
from llmfw.plugins.agentrefine.world.names import HELD_OUT
from llmfw.plugins.agentrefine.world.planner import Played, play


def played(count: int = 12, **options: Any) -> list[Played]:
    told = Options(**options)
    return [played_in(told, house, draw) for house, draw in islice(houses(told, "train"), count)]


def told_of(one: Played) -> list[dict[str, Any]]:
    return [turn_json(turn) for turn in one.turns]


def test_oracle_7_a_trajectory_of_the_planner_is_accepted_and_checking_it_again_changes_nothing() -> None:
    for one in played():
        found = verify(one.script, told_of(one))
        assert found.accepted and found.turns == one.turns
        assert verify(one.script, [turn_json(turn) for turn in found.turns]) == found


def corrupted(raw: dict[str, Any], how: str) -> Any:
    if how == "action":
        return {**raw, "Action": "fly to the moon"} if "Action" in raw else None
    if how == "role":
        return {**raw, "role": "Judge"}
    if how == "number":
        return {**raw, "turn": raw["turn"] + 1}
    if how == "flag":
        return {**raw, "place_error": "yes"} if "place_error" in raw else None
    return {key: value for key, value in raw.items() if key != "Thought"}


@pytest.mark.parametrize("how", ["action", "role", "number", "flag", "missing"])
def test_oracle_7_a_corrupt_turn_t_leaves_exactly_the_turns_before_it(how: str) -> None:
    """An action is corrupt only where its own answer has no flag: flagged ones may be anything."""
    tried = 0
    for one in played(6):
        raw = told_of(one)
        for t in range(1, len(raw) + 1):
            bad = corrupted(raw[t - 1], how)
            if bad is None or (how == "action" and one.turns[t].errors.any):
                continue
            found = verify(one.script, [*raw[: t - 1], bad, *raw[t:]])
            assert len(found.turns) == t - 1 and found.turns == one.turns[: t - 1]
            assert found.fault == ("action" if how == "action" else "turn")
            tried += 1
    assert tried > 20


@pytest.mark.parametrize(("errors", "fault"), [(0, "errors"), (1, "errors"), (2, None), (3, None)])
def test_oracle_7_one_repaired_error_is_too_few_and_two_are_enough(errors: int, fault: str | None) -> None:
    house, draw = next(
        pair for pair in houses(Options(), "train")
        if len(play(pair[0], random.Random(0), error_rate=0, least=0).turns) >= 8
    )  # fmt: skip
    one = play(house, draw, error_rate=0.0, least=errors)
    assert sum(turn.errors.any for turn in one.turns) == errors
    found = verify(one.script, told_of(one))
    assert found.fault == fault
    assert (next_prefix(found) == ()) == (fault == "errors"), "too few errors: begin anew"


def test_oracle_7_what_holds_can_be_gone_on_from() -> None:
    one = played(1)[0]
    raw = told_of(one)
    for cut in range(len(raw)):
        first = verify(one.script, raw[:cut])
        assert first.fault == "goal" and first.turns == one.turns[:cut]
        assert verify(one.script, raw[cut:], first.turns).turns == one.turns


def test_an_action_that_nobody_answered_is_judged_by_the_answer_of_the_next_attempt() -> None:
    script = played(1)[0].script
    player = {"turn": 1, "role": "Player", "Thought": "", "Action": "fly"}
    answer = {"turn": 2, "role": "DM", "Thought": "", "Observation": "no", "parameter_error": False,
              "place_error": False, "logic_error": False}  # fmt: skip
    held = verify(script, [player]).turns
    assert len(held) == 1
    assert verify(script, [answer], held).fault == "action" and verify(script, [answer], held).turns == ()
    assert len(verify(script, [{**answer, "logic_error": True}], held).turns) == 2


@pytest.mark.parametrize(
    ("text", "count"),
    [("[{}]", 1), ('{"turns": [1, 2]}', 2), ("Here:\n```json\n[1]\n```", 1), ("no", None), ("{}", None),
     ("[" * 100_000, None)],
)  # fmt: skip
def test_turns_are_read_from_plain_and_fenced_json(text: str, count: int | None) -> None:
    found = read_turns(text)
    assert (found is None) if count is None else (found is not None and len(found) == count)


@pytest.mark.parametrize("names", ["fixed", "varied", "held_out"])
def test_oracle_8_every_action_matches_its_template_alone_and_random_words_none(names: str) -> None:
    draw = random.Random(0)
    told = Options(names="fixed" if names == "held_out" else names)
    for house, _ in islice(houses(told, "train", HELD_OUT if names == "held_out" else None), 10):
        script = house.script()
        assert faults(script) == [] and 8 <= len(script.actions) <= 12
        for template, about in script.actions.items():
            for action in every(template, about):
                assert [one.template for one in match(action, script)] == [template]
        for _ in range(20):
            assert match("".join(draw.choices("abcdefgh 123{}", k=12)), script) == []


def script(**actions: Action) -> Script:
    return Script(goal="g", actions={key.replace("_", " "): value for key, value in actions.items()})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"look": Action(regex="lok")}, "doesn't match the verification code"),
        ({"look": Action(regex="look"), "wait": Action(regex="wait")}, ""),
        ({"look": Action(regex="l.*"), "lift": Action(regex="lift")}, "matches 'look', too"),
        ({"look": Action(regex="(")}, "is no regular expression"),
        ({"look": Action(regex="(l+o*)+k")}, "may take for ever"),
        ({"look": Action(regex="l" * 400)}, "may take for ever"),
        ({"go_{room}": Action(regex="go .*")}, "room has no values"),
        ({"look": Action(regex="look", parameters={"room": ("den",)})}, "room is no parameter of it"),
    ],
)  # fmt: skip
def test_faults_of_a_scripts_actions_are_told_in_words(given: dict[str, Action], said: str) -> None:
    found = faults(script(**given))
    assert said in (found[0] if found else "") and bool(found) == bool(said)


def test_a_long_action_matches_nothing_and_costs_nothing() -> None:
    assert match("look" + "k" * 10_000, script(look=Action(regex="look.*"))) == []


def test_scripts_and_turns_come_back_from_their_json() -> None:
    one = played(1)[0]
    assert script_json(script_of(script_json(one.script))) == script_json(one.script)
    assert [turn_of(turn_json(turn), turn.number) for turn in one.turns] == list(one.turns)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"Goal": None}, "'Goal'"), ({"Available Actions": {}}, "empty"), ({"Environment": []}, "'Environment'"),
     ({"Available Actions": {"go {x}": {"verification code": "go", "parameters": {"x": "d"}}}}, "list of"),
     ({"Available Actions": {"look": {}}}, "'verification code'")],
)  # fmt: skip
def test_a_script_that_cannot_be_used_is_one_clear_line(change: dict[str, Any], said: str) -> None:
    with pytest.raises(TrajectoryError, match=rf"error\[TRAJECTORY\].*{said}"):
        script_of({**script_json(played(1)[0].script), **change})
