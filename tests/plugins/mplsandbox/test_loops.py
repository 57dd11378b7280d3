"""Loops of a policy and a sandbox: correct, test, translate, look for holes. Policies are scripted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from llmfw.testing import plugin_module

Sandbox = plugin_module("mplsandbox", "executor").Sandbox
RequestError = plugin_module("mplsandbox", "executor").RequestError
LanguageError = plugin_module("mplsandbox", "languages").LanguageError
Case = plugin_module("mplsandbox", "records").Case
Request = plugin_module("mplsandbox", "records").Request
loops = plugin_module("mplsandbox", "loops")

TESTS = Request(code="", lang="python", cases=[Case(stdin=str(n), expected=str(2 * n)) for n in (1, 4, 9)])
RIGHT, HALF, WRONG = "print(int(input()) * 2)", "n = int(input())\nprint(2 * n if n < 9 else 0)", "print(1)"
SIGNS = """n = int(input())
if n < 0:
    print('minus')
elif n > 0:
    print('plus')
else:
    print('zero')
"""
LEAKY = """import pickle
import sys

print(eval(input()))
with open('x', 'rb') as file:
    pickle.load(file)
sys.exit(int(input()))
"""


@dataclass
class Answer:
    text: str


class Scripted:
    """Answers from a list per prompt's first word; keeps what it was asked."""

    def __init__(self, answers: dict[str, list[str]]) -> None:
        self.answers, self.asked = answers, list[list[str]]()

    def generate(self, prompts: Sequence[str], **sampling: Any) -> list[Answer]:
        self.asked.append(list(prompts))
        return [Answer(self.answers[self._key(prompt)].pop(0)) for prompt in prompts]

    def _key(self, prompt: str) -> str:
        return next(key for key in self.answers if key in prompt)


def test_a_loop_corrects_what_failed_and_leaves_alone_what_passed(sandbox: Sandbox) -> None:
    policy = Scripted({"ALPHA": [RIGHT], "BETA": [WRONG, HALF, RIGHT]})
    prompts = ["ALPHA: double it", "BETA: double it"]
    attempts = loops.self_correct(policy, sandbox, prompts, [TESTS] * 2, rounds=2)
    assert [[one.result.verdict for one in tries] for tries in attempts] == [["OK"], ["WA", "WA", "OK"]]
    assert [len(prompts) for prompts in policy.asked] == [2, 1, 1]
    second = policy.asked[1][0]
    assert "BETA: double it" in second and WRONG in second, "it sees the task and its own program"


def test_a_loop_ends_after_its_rounds(sandbox: Sandbox) -> None:
    policy = Scripted({"GAMMA": [WRONG] * 9})
    [tries] = loops.self_correct(policy, sandbox, ["GAMMA"], [TESTS], rounds=1)
    assert len(tries) == 2 and tries[-1].result.verdict == "WA"


def test_a_translation_is_judged_by_what_the_program_itself_prints(sandbox: Sandbox) -> None:
    """The first translation is wrong for 0 alone; the second one is right."""
    almost = "const n = parseInt(require('fs').readFileSync(0)); console.log(n < 0 ? 'minus' : 'plus');"
    right = almost.replace("'plus'", "n > 0 ? 'plus' : 'zero'")
    policy = Scripted({"": [f"```js\n{almost}\n```", f"```js\n{right}\n```"]})
    request = Request(code=SIGNS, lang="python", cases=[Case(stdin=n) for n in ("-3", "0", "8")])
    attempts = loops.translate(policy, sandbox, request, "javascript")
    assert [one.result.verdict for one in attempts] == ["WA", "OK"]
    assert [one.verdict for one in attempts[0].result.cases] == ["OK", "WA", "OK"]
    assert attempts[1].code.strip() == right and attempts[1].result.lang == "javascript"
    first, second = (prompts[0] for prompts in policy.asked)
    assert "from Python to JavaScript" in first and "```mermaid\nflowchart" in first
    assert almost in second and "from Python to JavaScript" in second


def test_a_program_that_works_on_no_input_is_not_translated(sandbox: Sandbox) -> None:
    request = Request(code="1 / 0", lang="python", cases=[Case(stdin="1")])
    with pytest.raises(RequestError, match="works on none of its 1 inputs"):
        loops.translate(Scripted({}), sandbox, request, "go")
    with pytest.raises(LanguageError, match="klingon"):
        loops.translate(Scripted({}), sandbox, request, "klingon")


def test_tests_grow_until_every_line_is_run(sandbox: Sandbox) -> None:
    """Of 7 lines 6 can run (``else:`` cannot): 8 runs lines 1, 2, 4, 5; -3 also 3; 0 also 7."""
    answers = [
        'Here:\n```\n{"stdin": "-3", "expected": "minus"}\n{"stdin": "8", "expected": "plus"}\n'
        '{"stdin": "5", "expected": "minus"}\nnonsense\n{"stdin": 4}\n{"expected": 1}\n[1]\n```',
        '{"stdin": "0", "expected": "zero"}',
        "never asked for",
    ]
    policy = Scripted({"": answers})
    request = Request(code=SIGNS, lang="python", cases=[Case(stdin="8", expected="plus")])
    grown = loops.grow_tests(policy, sandbox, "Say the sign of a number.", request, rounds=3)
    assert grown.coverage == ((4, 6), (5, 6), (6, 6))
    assert [(case.stdin, case.expected) for case in grown.cases] == [
        ("8", "plus"), ("-3", "minus"), ("0", "zero"),
    ]  # fmt: skip
    [(case, stage)] = grown.disputed
    assert case.stdin == "5" and stage.verdict == "WA"
    assert len(policy.asked) == 2 and "They never run lines 3, 7." in policy.asked[0][0]


def test_tests_of_a_function_are_calls(sandbox: Sandbox) -> None:
    code = "def sign(n):\n    if n < 0:\n        return -1\n    return 1\n"
    policy = Scripted({"": ['{"args": [-2], "expected": -1}\n{"stdin": "1", "expected": "1"}']})
    request = Request(
        code=code, lang="python", mode="call", entry_point="sign", cases=[Case(args=[1], expected=1)]
    )
    grown = loops.grow_tests(policy, sandbox, "The sign.", request, rounds=1)
    assert [case.args for case in grown.cases] == [[1], [-2]] and not grown.disputed
    assert "the arguments of sign" in policy.asked[0][0]


def test_what_analysers_suspect_is_judged_and_nothing_of_it_is_lost(lab: Sandbox) -> None:
    policy = Scripted(
        {"": ["- Line 4: REAL: it runs what it reads\n6: false : the file is ours\n"
              "5: missed: it may be a link\n3: false: nobody said so\n99: real: there is no such line"]}
    )  # fmt: skip
    found = loops.locate_vulnerabilities(policy, lab, Request(code=LEAKY, lang="python"))
    said = {one.line: (one.judged, one.why, bool(one.findings)) for one in found}
    if not any(one.findings for one in found):
        pytest.skip("no analyser of vulnerabilities is installed: llmfw sandbox install-tools")
    assert said[4] == ("real", "it runs what it reads", True)
    assert said[6] == ("false", "the file is ours", True)
    assert said[5] == ("missed", "it may be a link", False)
    assert 3 not in said and 99 not in said
    assert said[1][0] == "open" and said[1][2], "what the answer leaves out stays"
    assert "LINE: real, false or missed" in policy.asked[0][0]
