"""A model that writes scripts and trajectories: what holds is kept, the rest is asked for again. The model is
a scripted one, whose faults are known.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmfw.core.generation import ScriptedPolicy
from llmfw.core.rounds import Ledger
from llmfw.plugins.agentrefine.dialogue import kinds_of
from llmfw.plugins.agentrefine.plugin import AgentRefine
from llmfw.plugins.agentrefine.records import TrajectoryError, script_json, turn_json
from llmfw.plugins.agentrefine.rows import Options, ScriptedWorld, houses, played_in
from llmfw.plugins.agentrefine.sampler import refinement

PLAYED = [played_in(Options(), *pair) for pair in islice(houses(Options(), "train"), 3)]
ROWS = list(ScriptedWorld(Options(train=3)).rows("train"))
TURNS = {one.script.goal + str(one.script.environment): [turn_json(t) for t in one.turns] for one in PLAYED}


def turns_for(prompt: str) -> list[dict[str, Any]]:
    """The trajectory of the script that a prompt holds."""
    told = json.loads(prompt.split("\n")[1])
    return TURNS[told["Goal"] + str(told["Environment"])]


def asked_for(prompt: str) -> int:
    return int(prompt.split("Go on with turn ")[1].split(";")[0])


def sampled(answer: Any, folder: Path, rows: Any = ROWS, **settings: Any) -> tuple[Any, Ledger]:
    policy = ScriptedPolicy(answer)
    run = SimpleNamespace(seed=7, policy=lambda name: policy)
    make = refinement(AgentRefine.Config(generator="writer", **settings), run)
    with (ledger := Ledger(folder)).sampling(0):
        return make(0, rows, None, None, ledger), ledger


def test_a_right_writer_needs_one_attempt_a_script(tmp_path: Path) -> None:
    found, ledger = sampled(lambda prompts: [json.dumps(turns_for(p)) for p in prompts], tmp_path)
    assert len(found.records) == 3 and ledger.of("trajectory")["samples"] == 3
    assert found.notes["written/accepted"] == found.notes["written/attempts"] == 1.0
    assert all(row["meta"]["source"] == "model" for row in found.records)
    assert found.records[0]["messages"][0]["content"].startswith("Goal: ")
    assert [kinds_of(row) for row in found.records] == [kinds_of(row) for row in ROWS]


def test_an_attempt_goes_on_from_the_turns_that_hold(tmp_path: Path) -> None:
    """The writer breaks off with a wrong turn after four right ones; it's never asked for these again."""
    seen: list[int] = []

    def answer(prompts: Sequence[str]) -> list[str]:
        said = []
        for prompt in prompts:
            start = asked_for(prompt)
            seen.append(start)
            whole = turns_for(prompt)
            part = whole[start - 1 : start + 3]
            broken = [] if start + 3 >= len(whole) else [{"turn": "?"}]
            said.append(json.dumps([*part, *broken]))
        return said

    found, ledger = sampled(answer, tmp_path, attempts=8)
    assert len(found.records) == 3 and set(seen) == set(range(1, max(seen) + 1, 4))
    assert ledger.total()["samples"] == len(seen) == len(found.tables["attempts"])
    faults = [row["fault"] for row in found.tables["attempts"]]
    assert faults.count("") == 3 and faults.count("turn") == len(faults) - 3
    assert [[m["content"] for m in row["messages"][1:]] for row in found.records] == [
        [m["content"] for m in row["messages"][1:]] for row in ROWS
    ]


def test_too_few_errors_begin_the_story_anew(tmp_path: Path) -> None:
    seen: list[int] = []

    def answer(prompts: Sequence[str]) -> list[str]:
        said = []
        for prompt in prompts:
            seen.append(asked_for(prompt))
            turns = turns_for(prompt)
            if "too few" not in prompt and "wanted" not in prompt:
                turns = without_errors(turns)
            said.append(json.dumps(turns))
        return said

    found, _ = sampled(answer, tmp_path)
    assert len(found.records) == 3 and seen == [1] * 6
    assert [row["fault"] for row in found.tables["attempts"]].count("errors") == 3
    assert found.notes["written/fault/errors"] == 0.5


def without_errors(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    pairs = list(zip(turns[::2], turns[1::2]))
    right = [
        pair for pair in pairs if not any(pair[1][f"{x}_error"] for x in ("parameter", "place", "logic"))
    ]
    return [{**turn, "turn": at} for at, turn in enumerate((t for pair in right for t in pair), 1)]


def test_a_writer_of_nonsense_is_told_with_its_faults(tmp_path: Path) -> None:
    with pytest.raises(TrajectoryError, match=r"error\[NOTHING-ACCEPTED\].*none came.*json: 6") as caught:
        sampled(lambda prompts: ["once upon a time"] * len(prompts), tmp_path, attempts=2)
    assert caught.value.exit_code == 3


def test_a_script_is_asked_for_again_with_its_faults_until_it_holds(tmp_path: Path) -> None:
    file = tmp_path / "personas.txt"
    file.write_text("a baker\n\na pilot\n")
    asked: list[str] = []

    def answer(prompts: Sequence[str]) -> list[str]:
        said = []
        for prompt in prompts:
            if prompt.startswith("Set up"):
                asked.append(prompt)
                one = PLAYED["baker" in prompt]
                told = script_json(one.script)
                if "faults" not in prompt:
                    name = next(iter(told["Available Actions"]))
                    told["Available Actions"][name]["verification code"] = "nothing"
                said.append(f"Here it is: {json.dumps(told)}")
            else:
                said.append(json.dumps(turns_for(prompt)))
        return said

    found, ledger = sampled(answer, tmp_path / "run", rows=[], personas=str(file))
    assert len(found.records) == 2 and ledger.of("script")["samples"] == 4
    assert sum("doesn't match the verification code" in prompt for prompt in asked) == 2
    assert [row["stage"] for row in found.tables["attempts"]] == ["script"] * 4 + ["trajectory"] * 2


def test_a_script_that_comes_twice_is_played_once(tmp_path: Path) -> None:
    rows = [*ROWS, {**ROWS[0], "id": "again"}]
    found, _ = sampled(lambda prompts: [json.dumps(turns_for(p)) for p in prompts], tmp_path, rows=rows)
    assert len(found.records) == 3 and found.notes["written/duplicates"] == 1.0


@pytest.mark.parametrize(
    ("rows", "settings", "said"),
    [
        ([{"id": "x", "messages": []}], {}, r"error\[NO-SCRIPT\].*row x has no script"),
        ([], {"personas": "nowhere.txt"}, r"error\[PERSONAS\].*can't be read"),
        ([{"id": "x", "script": {}}], {}, r"error\[TRAJECTORY\].*'Goal'"),
    ],
)
def test_what_a_writer_needs_is_asked_for_in_one_line(
    tmp_path: Path, rows: Any, settings: dict[str, str], said: str
) -> None:
    with pytest.raises(TrajectoryError, match=said):
        sampled(lambda prompts: [""] * len(prompts), tmp_path, rows=rows, **settings)


def test_a_killed_round_asks_for_nothing_twice(tmp_path: Path) -> None:
    calls: list[int] = []

    def answer(prompts: Sequence[str]) -> list[str]:
        calls.append(len(prompts))
        return [json.dumps(turns_for(p)) for p in prompts]

    first, _ = sampled(answer, tmp_path)
    again, ledger = sampled(answer, tmp_path)
    assert first.records == again.records and calls == [3] and ledger.total()["samples"] == 3
