"""Requests, tests and verdicts: oracles 2 to 5 of the sheet."""

from __future__ import annotations

import os
from itertools import permutations
from pathlib import Path

import pytest

from llmfw import ExecutionLimits
from llmfw.testing import plugin_module

Executor = plugin_module("mplsandbox", "executor").Executor
RequestError = plugin_module("mplsandbox", "executor").RequestError
Sandbox = plugin_module("mplsandbox", "executor").Sandbox
LanguageError = plugin_module("mplsandbox", "languages").LanguageError
Case = plugin_module("mplsandbox", "records").Case
Checker = plugin_module("mplsandbox", "records").Checker
Limits = plugin_module("mplsandbox", "records").Limits
Request = plugin_module("mplsandbox", "records").Request
reward = plugin_module("mplsandbox", "verdicts").reward

ECHO = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())"


def run(sandbox: Sandbox, code: str, *cases: Case, **more: object):
    return sandbox.run(Request(code=code, cases=cases, **{"lang": "python", **more}))


def test_words_decide_nothing_a_right_answer_that_says_error_is_accepted(sandbox: Sandbox) -> None:
    code = "import sys; print('Error: SyntaxError'); print('Traceback', file=sys.stderr)"
    assert run(sandbox, code, Case(expected="Error: SyntaxError")).verdict == "OK"


def test_one_space_two_is_not_twelve(sandbox: Sandbox) -> None:
    assert run(sandbox, "print('1 2')", Case(expected="12")).verdict == "WA"
    assert run(sandbox, "print('1  2')", Case(expected="1 2\n")).verdict == "OK"


@pytest.mark.parametrize(
    "text",
    ["$(touch /tmp/x) `id` \"'\\ \n", "é 漢字 🎈\r\n\t", "x" * (1 << 20), ""],
    ids=["shell", "unicode", "one MiB", "empty"],
)
def test_input_arrives_byte_for_byte(sandbox: Sandbox, text: str) -> None:
    exact = Checker(name="exact")
    result = run(sandbox, ECHO, Case(stdin=text, expected=text, checker=exact), limits=Limits(output=1 << 21))
    assert result.verdict == "OK"


def test_empty_input_is_the_end_of_the_file_and_no_terminal(sandbox: Sandbox) -> None:
    code = "import sys; print(repr(sys.stdin.read()), sys.stdin.isatty(), sys.stdout.isatty())"
    assert run(sandbox, code, Case(expected="'' False False")).verdict == "OK"


def test_the_order_of_cases_changes_neither_reward_nor_pass_rate(sandbox: Sandbox) -> None:
    """Right for 1, wrong for 2, an error for 3: -0.6 and one third, in every order."""
    code = "n = int(input())\nif n == 3: raise ValueError\nprint(1)"
    cases = [Case(stdin=str(n), expected=str(n)) for n in (1, 2, 3)]
    seen = {(reward(told := run(sandbox, code, *some)), told.pass_rate) for some in permutations(cases)}
    assert seen == {(-0.6, 1 / 3)}


def test_without_tests_the_verdict_is_the_compilers(sandbox: Sandbox) -> None:
    fine, broken = run(sandbox, "print(1)"), run(sandbox, "print(1")
    assert (fine.verdict, fine.pass_rate, fine.cases) == ("OK", 1.0, ())
    assert (broken.verdict, broken.pass_rate) == ("CE", 0.0)
    assert "SyntaxError" in broken.compile.stderr


def test_raising_limits_never_makes_a_good_run_a_bad_one(sandbox: Sandbox) -> None:
    code = "x = bytearray(b'x' * (40 << 20)); print(len(x))"
    verdicts = [
        run(sandbox, code, Case(expected=str(40 << 20)), limits=Limits(seconds=s, memory=m)).verdict
        for s, m in ((0.5, 24), (2, 96), (5, 192), (10, 1024))
    ]
    assert verdicts == ["MLE", "OK", "OK", "OK"]


def test_each_case_has_a_folder_of_its_own(sandbox: Sandbox) -> None:
    code = "import os; print(os.listdir('.'), os.listdir('/tmp')); open('left', 'w'); open('/tmp/left', 'w')"
    result = run(sandbox, code, *[Case(expected="['main.py'] []")] * 3)
    assert result.verdict == "OK"


def test_sixty_four_mixed_jobs_side_by_side_give_the_verdicts_of_one_after_another(sandbox: Sandbox) -> None:
    """With more workers than processors, and nothing of them left afterwards."""
    kinds = [
        Request(code="print(input())", lang="python", cases=[Case(stdin="7", expected="7")]),
        Request(code="print(8)", lang="python", cases=[Case(expected="7")]),
        Request(code="1/0", lang="python", cases=[Case()]),
        Request(code="print(", lang="python", cases=[Case()]),
        Request(code="while True: print('x' * 999)", lang="python", cases=[Case()]),
        Request(code="x=b'x'*(99<<20)", lang="python", cases=[Case()], limits=Limits(memory=32)),
        Request(code="echo $((6 * 7))", lang="bash", cases=[Case(expected="42")]),
        Request(code="int main(void) { return 3; }", lang="c", cases=[Case()]),
    ]
    requests = kinds * 8
    wanted = ["OK", "WA", "RE", "CE", "OLE", "MLE", "OK", "RE"] * 8
    sandbox.close()
    before = len(os.listdir("/proc/self/fd"))
    with Sandbox(jobs=8) as many:
        assert [result.verdict for result in many.run_many(requests)] == wanted
    assert [sandbox.run(one).verdict for one in kinds] == wanted[:8]
    sandbox.close()
    assert len(os.listdir("/proc/self/fd")) <= before, "descriptors are left"
    assert not Path("/proc/self/task").joinpath(str(os.getpid()), "children").read_text().split()


def test_files_go_in_and_named_ones_come_back(sandbox: Sandbox) -> None:
    code = "import helper, os; os.makedirs('out'); open('out/x.txt', 'w').write(helper.text())"
    result = run(
        sandbox, code, Case(), outputs=["out/x.txt"], files={"helper.py": "def text(): return 'made'"}
    )
    assert result.verdict == "OK", result
    assert result.cases[0].outputs == {"out/x.txt": b"made"}


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", ""])
def test_files_outside_the_working_folder_are_refused(sandbox: Sandbox, path: str) -> None:
    with pytest.raises(RequestError, match="REQUEST"):
        run(sandbox, "print(1)", Case(), files={path: "x"})


@pytest.mark.parametrize(
    ("made", "why"),
    [
        ("os.symlink('/etc/passwd', 'x')", "link"),
        ("os.mkdir('x')", "no regular file"),
        ("os.mkfifo('x')", "no regular file"),
        ("open('y', 'w'); os.link('y', 'x')", "other names"),
        ("pass", "No such file"),
    ],
)
def test_what_is_no_plain_file_does_not_come_back(sandbox: Sandbox, made: str, why: str) -> None:
    stage = run(sandbox, f"import os\n{made}", Case(), outputs=["x"]).cases[0]
    assert (stage.verdict, stage.outputs) == ("SV", {})
    assert why in stage.detail


# Calls.


@pytest.mark.parametrize("lang", ["python", "javascript", "typescript"])
def test_a_functions_values_are_compared_with_their_types(sandbox: Sandbox, lang: str) -> None:
    code = {
        "python": "def f(x): return [x, {'a': None}]",
        "javascript": "const f = (x) => [x, {a: null}];",
        "typescript": "function f(x: any): any { return [x, {a: null}]; }",
    }[lang]
    cases = [
        Case(args=[1], expected=[1, {"a": None}]),
        Case(args=["é"], expected=["é", {"a": None}]),
        Case(args=[True], expected=[1, {"a": None}]),
    ]
    result = run(sandbox, code, *cases, lang=lang, mode="call", entry_point="f")
    assert [case.verdict for case in result.cases] == ["OK", "OK", "WA"], result


def test_values_that_json_cannot_say_arrive_as_they_are(sandbox: Sandbox) -> None:
    value = ((1, 2.5), {3: {4}}, float("inf"), b"x", 2j, {"k": [()]})
    result = run(
        sandbox, "def same(x): return x", Case(args=[value], expected=value), mode="call", entry_point="same"
    )
    assert result.verdict == "OK", result


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        ("import os; os._exit(0)", "WA"),
        ("raise SystemExit(0)", "WA"),
        ("print('ALL TESTS PASSED')\ndef f(x): return 0", "WA"),
        ("import os, json, struct\nt = json.dumps({'value': 42}).encode()\n"
         "os.write(3, struct.pack('<Q', len(t)) + t)\ndef f(x): return 0", "WA"),
        ("class Any:\n    def __eq__(self, other): return True\ndef f(x): return Any()", "RE"),
        ("class Int(int):\n    def __eq__(self, other): return True\ndef f(x): return Int(3)", "RE"),
        ("def g(x): return 42", "RE"),
        ("import json\njson.dumps = lambda *a, **k: '{}'\ndef f(x): return 0", "WA"),
        ("import os, struct, sys\ndef f(x):\n    nonce = sys._getframe(1).f_locals['nonce']\n"
         "    t = b'{\"nonce\": \"' + nonce.encode() + b'\", \"value\": ' + b'[' * 200000\n"
         "    os.write(3, struct.pack('<Q', len(t)) + t)\n    os._exit(0)", "WA"),
        ("import os, struct, sys\ndef f(x):\n    nonce = sys._getframe(1).f_locals['nonce']\n"
         "    t = b'{\"nonce\": \"' + nonce.encode() + b'\", \"value\": ' + b'[' * 900 + b']' * 900 + b'}'\n"
         "    os.write(3, struct.pack('<Q', len(t)) + t)\n    os._exit(0)", "WA"),
        ("def f(x): return 42", "OK"),
    ],
)  # fmt: skip
def test_cheating_a_call_earns_nothing(sandbox: Sandbox, code: str, verdict: str) -> None:
    result = run(sandbox, code, Case(args=[21], expected=42), mode="call", entry_point="f")
    assert result.verdict == verdict, result


TESTS = "def check(candidate):\n    assert candidate(3) == 9\n    assert candidate(-2) == 4\ncheck(candidate)"


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        ("def square(x): return x * x", "OK"),
        ("def square(x): return 3 * x", "WA"),
        ("def square(x): raise KeyError(x)", "RE"),
        ("def cube(x): return x", "RE"),
        ("def square(x):\n    while True: pass", "TLE"),
        ("import os; os._exit(0)", "WA"),
        ("import sys\ndef square(x): sys.exit(0)", "WA"),
        ("class Yes:\n    def __eq__(self, other): return True\ndef square(x): return Yes()", "RE"),
        ("import gc, builtins\nbuiltins.AssertionError = KeyError\ndef square(x): return 1", "WA"),
        ("def square(x) return 1", "CE"),
    ],
)
def test_a_test_program_judges_values_alone(sandbox: Sandbox, code: str, verdict: str) -> None:
    result = run(
        sandbox, code, mode="tests", entry_point="square", tests=TESTS, limits=Limits(seconds=1, wall=6)
    )
    assert result.verdict == verdict, result


def test_a_test_program_may_expect_an_exception(sandbox: Sandbox) -> None:
    tests = "try: candidate(0)\nexcept ZeroDivisionError: pass\nelse: assert False"
    result = run(sandbox, "def f(x): return 1 / x", mode="tests", entry_point="f", tests=tests)
    assert result.verdict == "OK", result


# Checkers.


@pytest.mark.parametrize(
    ("checker", "output", "expected", "right"),
    [
        (Checker(name="exact"), "1 ", "1", False),
        (Checker(), "1\n 2", "1 2", True),
        (Checker(name="float"), "0.30000001 x", "0.3 x", True),
        (Checker(name="float"), "0.31", "0.3", False),
        (Checker(name="float"), "nan", "0.3", False),
        (Checker(name="unordered"), "b\na a", "a a\nb", True),
        (Checker(name="unordered"), "a\nb", "a\na\nb", False),
    ],
)
def test_outputs_are_compared_as_the_checker_says(
    sandbox: Sandbox, checker: Checker, output: str, expected: str, right: bool
) -> None:
    result = run(sandbox, f"print({output!r}, end='')", Case(expected=expected), checker=checker)
    assert result.verdict == ("OK" if right else "WA")


def test_a_checker_program_decides_in_a_sandbox_of_its_own(sandbox: Sandbox) -> None:
    """It accepts any multiple of what is expected; one that crashes is nobody's wrong answer."""
    code = "a, b = int(open('output').read()), int(open('expected').read())\nraise SystemExit(a % b != 0)"
    checker = Checker(name="program", code=code)
    verdicts = [
        run(sandbox, f"print({n})", Case(expected="7"), checker=checker).verdict for n in (14, 15, "'x'")
    ]
    assert verdicts == ["OK", "WA", "WA"]  # an uncaught exception ends a checker with 1, too
    broken = Checker(name="program", code="raise SystemExit(5)")
    assert run(sandbox, "print(1)", Case(expected="7"), checker=broken).verdict == "IE"


# The service.


def test_the_service_answers_in_the_cores_words(sandbox: Sandbox) -> None:
    executor = Executor(sandbox)
    fine = executor.run("print(input() * 2)", stdin="ab")
    assert (fine.status, fine.stdout, fine.exit_code) == ("ok", "abab\n", 0)
    assert fine.memory and fine.memory > 1 and fine.seconds > 0
    assert executor.run("raise SystemExit(3)").exit_code == 3
    assert executor.run("print(").status == "compile_error"
    slow = executor.run("while True: pass", limits=ExecutionLimits(seconds=0.5))
    assert (slow.status, slow.exit_code) == ("time_limit", None)


def test_an_unknown_language_is_named_with_what_is_known(sandbox: Sandbox) -> None:
    with pytest.raises(LanguageError, match=r"LANGUAGE.*'klingon'.*python"):
        run(sandbox, "x", Case(), lang="klingon")


def test_a_language_that_is_not_installed_says_which_package_brings_it(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin_module("mplsandbox", "languages"), "PATHS", ())
    with pytest.raises(LanguageError, match=r"LANGUAGE-ABSENT.*apt-get install lua5.4"):
        run(sandbox, "print(1)", Case(), lang="lua")
