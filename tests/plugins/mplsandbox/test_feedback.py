"""Results and analyses as text for prompts: what is told, in which bounds, and what never is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmfw.testing import plugin_module

Analysis = plugin_module("mplsandbox", "analysis").Analysis
Finding = plugin_module("mplsandbox", "analysis").Finding
ToolReport = plugin_module("mplsandbox", "analysis").ToolReport
correction_prompt = plugin_module("mplsandbox", "feedback").correction_prompt
feedback = plugin_module("mplsandbox", "feedback").feedback
refinement_prompt = plugin_module("mplsandbox", "feedback").refinement_prompt
translation_prompt = plugin_module("mplsandbox", "feedback").translation_prompt
unit_test_prompt = plugin_module("mplsandbox", "feedback").unit_test_prompt
vulnerability_prompt = plugin_module("mplsandbox", "feedback").vulnerability_prompt
Isolation = plugin_module("mplsandbox", "records").Isolation
Result = plugin_module("mplsandbox", "records").Result
Stage = plugin_module("mplsandbox", "records").Stage

TASK = "Print twice the number that is read."
CODE = "n = int(input())\nprint(n + n)\n"


def result(*stages: Stage, verdict: str = "WA", compiled: Stage | None = None) -> Result:
    return Result(
        lang="python", confidence=1.0, verdict=verdict, compile=compiled, cases=stages,
        isolation=Isolation(level="strict", backend="bubblewrap"), version="1",
    )  # fmt: skip


WRONG = result(Stage(verdict="OK"), Stage(verdict="WA", detail="by checker tokens", stdout="22\n"))
ANALYSIS = Analysis(
    lang="python",
    reports=(
        ToolReport(
            tool="bandit", version="1", category="bug", status="ok",
            findings=(
                Finding(
                    tool="bandit", category="bug", rule="B307", severity="warning", line=2, message="eval"
                ),
                Finding(tool="bandit", category="bug", rule="B1", severity="error", message="worse", line=9),
            ),
        ),
        ToolReport(
            tool="gcov", version="1", category="coverage", status="ok",
            artefacts={
                "coverage": json.dumps(
                    {"executable": [1, 2, 3, 4, 6], "covered": [1], "missing": [2, 3, 4, 6]}
                )
            },
        ),
        ToolReport(
            tool="outline", version="1", category="basic", status="ok",
            artefacts={"cfg mermaid": "flowchart TD\n  a --> b\n"},
        ),
        ToolReport(tool="ruff", version="", category="smell", status="absent", detail="not here"),
    ),
)  # fmt: skip


def test_the_first_test_that_failed_is_told_with_its_output() -> None:
    text = feedback(WRONG)
    assert "passed 1 of 2 tests" in text
    assert "On test 2 it printed or returned a wrong answer (by checker tokens)." in text
    assert "22" in text


def test_a_program_that_does_not_compile_is_told_with_the_compilers_words() -> None:
    broken = Stage(verdict="CE", detail="exit code 1", stderr="main.c:1: error: expected ;")
    text = feedback(result(broken, verdict="CE", compiled=broken))
    assert "doesn't compile" in text
    assert "expected ;" in text


def test_analyses_are_told_worst_first_with_lines_that_no_test_runs() -> None:
    text = feedback(WRONG, ANALYSIS)
    assert text.index("worse") < text.index("eval")
    assert "The tests run 1 of 5 lines that can run. They never run lines 2-4, 6." in text
    assert "(not asked, as they aren't here: ruff)" in text


def test_each_prompt_holds_its_parts() -> None:
    assert all(
        part in correction_prompt(TASK, CODE, WRONG, ANALYSIS)
        for part in (TASK, CODE, "B307", "wrong answer")
    )
    assert all(
        part in refinement_prompt(TASK, CODE, WRONG, ANALYSIS) for part in (TASK, CODE, "without a change")
    )
    assert all(
        part in unit_test_prompt(TASK, CODE, WRONG, ANALYSIS) for part in (TASK, "  2 print(n + n)", "2-4, 6")
    )
    text = translation_prompt(CODE, "python", "cpp", ANALYSIS)
    assert all(
        part in text for part in (CODE, "from Python to C++", "```mermaid\nflowchart TD\n  a --> b\n```")
    )
    assert all(
        part in vulnerability_prompt(CODE, "python", ANALYSIS) for part in ("  1 n = int(input())", "B307")
    )


def test_without_an_analysis_prompts_say_so() -> None:
    assert "Nobody has measured them." in unit_test_prompt(TASK, CODE, WRONG)
    assert "They suspect nothing." in vulnerability_prompt(CODE, "python")
    assert "How control flows" not in translation_prompt(CODE, "python", "go")


@given(st.text(max_size=3000), st.text(max_size=3000), st.text(max_size=3000), st.integers(700, 4000))
def test_prompts_keep_their_bound_and_their_request(task: str, code: str, said: str, limit: int) -> None:
    failed = result(Stage(verdict="RE", detail="exit code 1", stderr=said), verdict="RE")
    text = correction_prompt(task, code, failed, ANALYSIS, limit=limit)
    assert len(text) <= limit
    assert text.endswith("Keep what already works.")
    assert len(feedback(failed, ANALYSIS, limit=200)) <= 200
    assert len(vulnerability_prompt(code, "python", ANALYSIS, limit=limit)) <= limit
    assert len(translation_prompt(code, "python", "java", ANALYSIS, limit=limit)) <= limit


def test_short_parts_stay_whole_where_a_long_one_is_cut() -> None:
    text = correction_prompt(
        TASK, CODE, result(Stage(verdict="RE", stderr="x" * 10**6), verdict="RE"), limit=1200
    )
    assert TASK in text and CODE in text
    assert len(text) <= 1200


def test_a_fence_in_the_code_does_not_end_the_fence_around_it() -> None:
    code = 'print("```")\n'
    assert f"````python\n{code}````" in correction_prompt(TASK, code, WRONG)


def test_control_characters_of_a_program_do_not_reach_a_prompt() -> None:
    noisy = result(Stage(verdict="WA", stdout="\x1b[2Jred\u202e\x07"))
    assert not set(feedback(noisy)) & set("\x1b\u202e\x07")


@pytest.mark.parametrize("make", [correction_prompt, refinement_prompt, unit_test_prompt])
def test_a_prompt_is_a_pure_function(make: object) -> None:
    assert make(TASK, CODE, WRONG, ANALYSIS) == make(TASK, CODE, WRONG, ANALYSIS)  # type: ignore[operator]
