"""Verifier ``program``: runs the program in a response and compares what it prints."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from llmfw.core.errors import DataError, LlmfwError, SandboxError
from llmfw.core.failpoints import failpoint
from llmfw.core.records import CodeExecutor, Execution, Row, Verdict
from llmfw.core.verifiers.by_answer import gold_of
from llmfw.core.verifiers.printing import printing
from llmfw.core.verifiers.value import same_value

_FENCE = re.compile(
    r"^[ \t]*(?:```+|~~~+)[ \t]*([\w+#.-]*)[^\n]*\n(.*?)(?:^[ \t]*(?:```+|~~~+)[ \t]*$|\Z)",
    re.MULTILINE | re.DOTALL,
)
_PYTHON = ("", "python", "py", "python3")
Test = tuple[str, str]
"""(what the program reads, what it is to print)."""


def build(service: Callable[..., Any]) -> Program:
    """With the ``CodeExecutor`` of the run."""
    return Program(service("CodeExecutor"))


def program_in(response: str, language: str = "python") -> str:
    """The program in a response: what stands in its last fence of that language or of none named, in the last
    of any; without a fence the whole response. A fence that isn't closed goes to the end.
    """
    found = [(name.lower(), code) for name, code in _FENCE.findall(response)]
    mine = _PYTHON if language == "python" else ("", language)
    codes = [code for name, code in found if name in mine] or [code for _, code in found]
    return codes[-1] if codes else response


def tests_of(row: Row) -> list[Test]:
    """A row's tests, each ``{"stdin": TEXT, "expected": TEXT}``; empty where the program is to print the
    row's answer.

    Raises:
        DataError: TESTS, a test of another form.
    """
    tests = row.get("tests") or []
    for test in tests:
        right = isinstance(test, dict) and isinstance(test.get("expected"), str)
        if not right or not isinstance(test.get("stdin", ""), str) or set(test) - {"stdin", "expected"}:
            raise DataError(
                "TESTS",
                f"row {row.get('id', '?')}: a test isn't of the form stdin and expected, both texts",
                mend='write "tests": [{"stdin": "4", "expected": "8"}]',
                key="tests",
            )
    return [(test.get("stdin", ""), test["expected"]) for test in tests]


class Program:
    """Right where the program passes every test; the score is the share that it passes.

    The language is ``meta.language``, else Python. What a test expects is compared token by token, split at
    white space; a row's answer with the last line printed (of several lines with as many), as a number or as
    words. Where the executor fails the verdict is ``failed``.
    """

    def __init__(self, executor: CodeExecutor) -> None:
        self.executor = executor

    def verify(self, rows: Sequence[Row], responses: Sequence[str]) -> list[Verdict]:
        """One verdict a response; an empty one is ``unparsed``."""
        return [self._verdict(row, response) for row, response in zip(rows, responses, strict=True)]

    def _verdict(self, row: Row, response: str) -> Verdict:
        language = str((row.get("meta") or {}).get("language", "python"))
        code = program_in(response, language)
        if not code.strip():
            return Verdict(status="unparsed")
        try:
            return self._tested(row, code, language)
        except (LlmfwError, OSError) as error:
            if isinstance(error, LlmfwError) and error.exit_code != SandboxError.exit_code:
                raise  # a language that isn't here, say: that's the run's fault, not this program's
            return Verdict(status="failed")

    def _tested(self, row: Row, code: str, language: str) -> Verdict:
        tests = tests_of(row)
        if not tests:
            told = self._run(code, language)
            printed = told.stdout.strip().splitlines()
            lines = len(gold_of(row).strip().splitlines())
            answer = "\n".join(printed[-lines:]).strip() if printed else None
            right = told.status == "ok" and answer is not None and same_value(gold_of(row), answer)
            return Verdict(status="right" if right else "wrong", score=float(right), answer=answer)
        passed = 0
        for stdin, expected in tests:
            told = self._run(code, language, stdin)
            if told.status == "compile_error":
                break
            passed += told.status == "ok" and told.stdout.split() == expected.split()
        return Verdict(status="right" if passed == len(tests) else "wrong", score=passed / len(tests))

    def _run(self, code: str, language: str, stdin: str = "") -> Execution:
        """What the executor says; nobody has written it down yet when a test kills here."""
        told = self.executor.run(code, language=language, stdin=stdin)
        failpoint("sandbox.mid_call")
        return told

    def canaries(self, row: Row) -> list[tuple[str, bool]]:
        """A program that prints what is expected, one that prints other words, and in Python one that prints
        what is expected and fails; without those that ``printing`` can't write.

        In other languages than Python only what all tests expect is printed: there's no right program where
        they expect different texts. There's none either where they contradict each other.
        """
        language = str((row.get("meta") or {}).get("language", "python")).lower()
        tests = tests_of(row)
        known = dict(tests)
        right: str | None = None
        if language in _PYTHON:
            right = f"import sys\nprint({known!r}[sys.stdin.read()])" if tests else f"print({gold_of(row)!r})"
        elif len({tuple(expected.split()) for _, expected in tests}) < 2:
            right = printing(tests[0][1] if tests else gold_of(row), language)
        if any(known[stdin].split() != expected.split() for stdin, expected in tests):
            right = None
        words = " ".join(" ".join(["no", *known.values(), gold_of(row), "this"]).split())
        wrong = [printing(words, language)]
        if language in _PYTHON and right is not None:
            wrong.append(f"{right}\nraise SystemExit(1)")
        programs = [(right, True), *((code, False) for code in wrong)]
        return [(f"```{language}\n{code}\n```", good) for code, good in programs if code is not None]
