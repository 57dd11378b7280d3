"""Unit-test generation: a policy reads which lines no test runs, and writes tests that run them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..analysis import Analysis, analyze
from ..executor import Sandbox
from ..feedback import unit_test_prompt
from ..records import Case, Request, Stage
from ..reward_function import program_in

_TESTS, _SIZE = 50, 10_000
"""Tests that are read of an answer, and characters of each."""


@dataclass(frozen=True, kw_only=True)
class Grown:
    """What came of a loop.

    Attributes:
        cases: the tests that there were, and those that were written and that the program passes.
        disputed: tests that it fails, with what became of it: the test is wrong, or the program.
        coverage: (lines that tests run, lines that can run), before the loop and after each round; empty
            where no analyser here measures them.
    """

    cases: tuple[Case, ...]
    disputed: tuple[tuple[Case, Stage], ...]
    coverage: tuple[tuple[int, int], ...]


def grow_tests(
    policy: Any,
    sandbox: Sandbox,
    task: str,
    request: Request,
    *,
    rounds: int = 2,
    sampling: Mapping[str, Any] | None = None,
) -> Grown:
    """Let a policy write tests for a program, at most ``rounds`` times; it ends where every line is run.

    Args:
        policy: of ``llmfw``: local, scripted or an endpoint.
        task: what the program is to do.
        request: the program with the tests that there are, in mode stdin or call.
        sampling: settings of its ``generate``.
    """
    cases, disputed = list(request.cases), list[tuple[Case, Stage]]()
    analysis = analyze(sandbox, request, ("coverage",))
    coverage = [_counted(analysis)]
    for _ in range(rounds):
        if coverage[-1] is not None and coverage[-1][0] == coverage[-1][1]:
            break
        now = replace(request, cases=cases)
        called = request.entry_point if request.mode == "call" else ""
        prompt = unit_test_prompt(task, request.code, sandbox.run(now), analysis, called=called)
        [answer] = policy.generate([prompt], **(sampling or {}))
        seen = {_input(case) for case in (*cases, *(case for case, _ in disputed))}
        for case in written(answer.text, request):
            if _input(case) in seen:
                continue
            seen.add(_input(case))
            stage = sandbox.run(replace(request, cases=[case])).cases[0]
            if stage.verdict == "OK":
                cases.append(case)
            elif stage.verdict != "IE":
                disputed.append((case, stage))
        analysis = analyze(sandbox, replace(request, cases=cases), ("coverage",))
        coverage.append(_counted(analysis))
    known = tuple(one for one in coverage if one is not None)
    return Grown(cases=tuple(cases), disputed=tuple(disputed), coverage=known)


def written(answer: str, request: Request) -> Iterator[Case]:
    """The tests in an answer: a JSON object a line, as the prompt asks for; other lines are passed over."""
    lines = [line.strip() for line in program_in(answer).splitlines()]
    for line in [one for one in lines if one.startswith("{") and len(one) <= _SIZE][:_TESTS]:
        try:
            told = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if "expected" not in told:
            continue
        if request.mode == "call" and isinstance(told.get("args"), list):
            yield Case(args=told["args"], expected=told["expected"])
        elif request.mode == "stdin" and isinstance(told.get("stdin"), str):
            yield Case(stdin=told["stdin"], expected=str(told["expected"]))


def _input(case: Case) -> str:
    return repr((case.stdin, list(case.args), dict(case.kwargs)))


def _counted(analysis: Analysis) -> tuple[int, int] | None:
    """Lines that are run, lines that can run; None where nobody measured them."""
    table = analysis.artefact("coverage")
    told = json.loads(table) if table else {}
    return (len(told["covered"]), len(told["executable"])) if "covered" in told else None
