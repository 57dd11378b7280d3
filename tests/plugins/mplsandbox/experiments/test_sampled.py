"""Choosing among programs, over programs that are written here: only sampling is replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmfw import Workspace
from llmfw.testing import plugin_module

sampled = plugin_module("mplsandbox", "experiments.sampled")
TASKS = plugin_module("mplsandbox", "experiments.tasks").TASKS
Sandbox = plugin_module("mplsandbox", "executor").Sandbox

PROGRAMS = (
    # add: one right, two wrong alike, one that doesn't compile
    (
        "def add(a, b): return a - b",
        "def add(a, b): return a + b",
        "def add(a, b): return a - b",
        "def add(a",
    ),
    # double: the visible tests know no difference between the two that pass them
    ("def double(n): return n", "def double(n): return 1 / 0", "def double(n): return n", "def double(n): n"),
)


@pytest.fixture
def where(monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox, tmp_path: Path) -> Workspace:
    scale = sampled.Scale(tasks=2, samples=4, tokens=1)
    monkeypatch.setattr(sampled, "SCALES", {"small": scale})
    monkeypatch.setattr(sampled, "programs", lambda scale, seed: PROGRAMS)
    return Workspace(dir=tmp_path, seed=1, size="small")


@pytest.mark.parametrize(
    ("arm", "found"),
    [
        ("pass_at_1", [0.25, 0.0]),
        ("first_of", [0.0, 0.0]),
        ("most_frequent", [0.0, 0.0]),
        ("best_of_n", [1.0, 0.0]),
        ("pass_at_n", [1.0, 0.0]),
    ],
)
def test_each_way_to_choose_gives_what_was_worked_out_by_hand(
    where: Workspace, arm: str, found: list[float]
) -> None:
    """Of add's four programs one is right: 1/4 at random, found by its tests; of double's none is."""
    assert getattr(sampled, arm)(where) == {"hidden_pass": found}


def test_a_choice_by_visible_tests_can_be_wrong(where: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that knows the visible inputs only is chosen, and fails."""
    shown = {tuple(case.args): case.expected for case in TASKS[0].visible}
    learnt = f"def add(a, b): return {shown!r}.get((a, b))"
    monkeypatch.setattr(sampled, "programs", lambda scale, seed: ((learnt, "def add(a, b): return 0"),) * 2)
    assert sampled.best_of_n(where)["hidden_pass"][0] == 0.0


def test_a_sandbox_that_fails_is_no_wrong_program(where: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def run_many(self, requests: object) -> list[object]:
            real = list(Sandbox().run_many(requests))
            stages = [
                [type(one)(verdict="IE", detail="no memory") for one in result.cases] for result in real
            ]
            kind = type(real[0])
            return [
                kind(**{**vars(one), "verdict": "IE", "cases": tuple(stage)})
                for one, stage in zip(real, stages, strict=True)
            ]

    monkeypatch.setattr(sampled, "Sandbox", Broken)
    with pytest.raises(RuntimeError, match="the sandbox failed in task add: no memory"):
        sampled.pass_at_1(where)
