"""The verifier ``program``: what a response's program prints."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmfw.core.errors import CanaryError, DataError, LlmfwError, UsageError
from llmfw.core.verifiers.canaries import Checked
from llmfw.core.verifiers.program import Program, build, program_in

DOUBLES: dict[str, Any] = {
    "id": "q1",
    "prompt": "Double the number.",
    "answer": "8",
    "tests": [{"stdin": "4", "expected": "8"}, {"stdin": "-1", "expected": "-2\n"}],
}
RIGHT = "```python\nprint(int(input()) * 2)\n```"


@pytest.mark.parametrize(
    ("response", "wanted"),
    [
        ("```python\nfirst\n```\nBetter:\n```python\nsecond\n```", "second\n"),
        ("```python\ncode\n```\nIt prints:\n```text\n8\n```", "code\n"),
        ("```\ncode\n```", "code\n"),
        ("```python\ncut off", "cut off"),
        ("~~~py\ncode\n~~~", "code\n"),
        ("print(1)", "print(1)"),
        ("", ""),
    ],
)
def test_the_program_stands_in_the_last_fence_of_its_language(response: str, wanted: str):
    assert program_in(response) == wanted


def test_of_another_language_its_own_fence_is_taken():
    assert program_in("```go\na\n```\n```python\nb\n```", "go") == "a\n"


@pytest.mark.parametrize(
    ("response", "status", "score"),
    [
        (RIGHT, "right", 1.0),
        ("Sure!\n```python\nn = input()\nprint(8)\n```", "wrong", 0.5),
        ("```python\nprint(1 / 0)\n```", "wrong", 0.0),
        ("```python\nprint(\n```", "wrong", 0.0),
        ("print(8)\nraise SystemExit(1)", "wrong", 0.0),
        ("I can't do that.", "wrong", 0.0),
        ("", "unparsed", 0.0),
        ("```python\n```", "unparsed", 0.0),
    ],
)
def test_the_score_is_the_share_of_tests_passed(local: Any, response: str, status: str, score: float):
    (verdict,) = Program(local).verify([DOUBLES], [response])
    assert (verdict.status, verdict.score) == (status, score)


@pytest.mark.parametrize(
    ("answer", "response", "wanted"),
    [
        ("8", "print(2 ** 3)", "right"),
        ("8", "print('so:')\nprint(8.0)", "right"),
        ("8", "print(9)", "wrong"),
        ("8", "pass", "wrong"),
        ("Paris", "print('paris')", "right"),
        ("1\n2", "print('so:')\nprint(1)\nprint(2)", "right"),
        ("1\n2", "print(2)", "wrong"),
    ],
)
def test_without_tests_the_last_line_printed_is_the_answer(
    local: Any, answer: str, response: str, wanted: str
):
    (verdict,) = Program(local).verify([{"prompt": "?", "answer": answer}], [response])
    assert verdict.status == wanted


def test_a_sandbox_that_fails_makes_no_program_wrong(local: Any):
    """Of one row nothing is said; a batch of nothing but failures, canaries among them, is an error."""
    local.down = True
    (verdict,) = Program(local).verify([DOUBLES], [RIGHT])
    assert verdict.status == "failed"
    with pytest.raises(CanaryError, match="'program' failed on every response"):
        Checked(Program(local), "program").verify([DOUBLES], [RIGHT])


def test_a_language_that_is_not_here_is_an_error(local: Any):
    def run(*arguments: Any, **named: Any) -> None:
        raise UsageError("LANGUAGE", "no such language", mend="install it")

    local.run = run
    with pytest.raises(LlmfwError, match="no such language"):
        Program(local).verify([DOUBLES], [RIGHT])


@pytest.mark.parametrize(
    "row",
    [
        DOUBLES,
        {"prompt": "?", "answer": "8"},
        {"prompt": "?", "answer": 'it\'s "so"\\'},
        {"prompt": "?", "answer": "1 2\n3 4"},
        {"prompt": "?", "answer": "none", "tests": [{"stdin": "", "expected": ""}]},
    ],
)
def test_what_is_known_of_a_row_is_judged_so(local: Any, row: dict[str, Any]):
    known = Program(local).canaries(row)
    assert [right for _, right in known] == [True, False, False]
    for response, right in known:
        assert Program(local).verify([row], [response])[0].right == right


def test_tests_that_contradict_each_other_have_no_right_program(local: Any):
    row = {**DOUBLES, "tests": [{"stdin": "", "expected": "1"}, {"stdin": "", "expected": "2"}]}
    assert [right for _, right in Program(local).canaries(row)] == [False]


def test_an_executor_that_says_ok_to_a_program_that_failed_is_found(local: Any):
    ran = local.run
    local.run = lambda code, **given: replace(ran(code, **given), status="ok")
    with pytest.raises(CanaryError, match="raise SystemExit"):
        Checked(Program(local), "program").verify([DOUBLES], [RIGHT])


def test_of_another_language_the_same_text_for_all_tests_can_be_printed(local: Any):
    """Tests that expect 8 and -2 have no right program of one line; a wrong one they have."""
    go = {**DOUBLES, "meta": {"language": "go"}}
    assert [right for _, right in Program(local).canaries(go)] == [False]
    one = {**go, "tests": go["tests"][:1]}
    (first, right), (second, wrong) = Program(local).canaries(one)
    assert right and 'fmt.Println("8")' in first and first.startswith("```go\n") and first.endswith("\n```")
    assert not wrong and 'fmt.Println("no 8 8 this")' in second
    assert Program(local).canaries({**DOUBLES, "meta": {"language": "apl"}}) == []


@pytest.mark.parametrize("test", [{"stdin": "4"}, {"expected": 8}, "8", {"expected": "8", "inptu": "4"}])
def test_a_test_of_another_form_is_an_error_that_names_the_row(local: Any, test: Any):
    with pytest.raises(DataError, match="row q1: a test isn't of the form"):
        Program(local).verify([{**DOUBLES, "tests": [test]}], [RIGHT])


def test_it_is_built_with_the_runs_executor(local: Any):
    asked: list[str] = []

    def service(protocol: str) -> Any:
        asked.append(protocol)
        return local

    assert build(service).executor is local and asked == ["CodeExecutor"]
