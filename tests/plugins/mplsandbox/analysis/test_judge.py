"""A model as an analyser: what it's asked, and what of its answer counts."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from llmfw.testing import plugin_module

judge = plugin_module("mplsandbox", "analysis.judge").judge
read = plugin_module("mplsandbox", "analysis.judge").read

CODE = "a = input()\neval(a)\n"


class Answers:
    """A policy that says the same to everything."""

    def __init__(self, text: str) -> None:
        self.text, self.heard = text, []

    def generate(self, prompts: Sequence[Any], **sampling: Any) -> list[Any]:
        self.heard.append((list(prompts), sampling))
        return [SimpleNamespace(text=self.text) for _ in prompts]


def test_a_finding_a_line_is_read() -> None:
    policy = Answers(
        '{"line": 2, "severity": "error", "rule": "eval", "message": "It runs what is typed."}\n'
    )
    (found,) = judge(policy, CODE, "Python", "bug", max_new_tokens=99, temperature=0.0)
    assert (found.tool, found.category, found.severity, found.line) == ("judge", "bug", "error", 2)
    ((prompt,), sampling), = policy.heard  # fmt: skip
    assert "   2 eval(a)" in prompt
    assert sampling == {"max_new_tokens": 99, "temperature": 0.0}


def test_chatter_fences_lists_and_broken_lines_do_not_matter() -> None:
    answer = (
        "Sure! Here is {what} I found:\n```json\n"
        '[{"line": 1, "message": "one"},\n {"line": "2", "severity": "WARNING", "message": "two"}]\n'
        '{"line": 3, "message": "broken\n{"message": ""}\n{"message": "three", "line": 99, "severity": 5}\n'
        "```\n"
    )
    found = read(answer, "smell", lines=2)
    assert [(one.line, one.severity, one.message) for one in found] == [
        (1, "info", "one"), (2, "warning", "two"), (0, "info", "three"),
    ]  # fmt: skip


def test_none_and_nonsense_are_no_findings() -> None:
    for answer in ("none", "", "{" * 50_000, '{"a": ' * 50_000, "[]", '{"message": null}'):
        assert read(answer, "bug", lines=2) == []


def test_a_long_answer_is_cut() -> None:
    answer = "\n".join(f'{{"line": 1, "message": "m{i}"}}' for i in range(5000))
    assert len(read(answer, "bug", lines=2)) == 500
