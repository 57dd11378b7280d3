"""``llmfw sandbox``: what is printed, and the exit code of each verdict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmfw.testing import plugin_module
from llmfw.testing.runner import Runner

pytestmark = pytest.mark.slow

EXIT = plugin_module("mplsandbox", "commands").EXIT
VERDICTS = plugin_module("mplsandbox", "records").VERDICTS


@pytest.fixture(autouse=True)
def _needs(sandbox) -> None:
    """A machine that can hold programs."""


def written(folder: Path, text: str, name: str = "prog.py") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_every_verdict_has_an_exit_code_of_its_own() -> None:
    assert set(EXIT) == set(VERDICTS) and len(set(EXIT.values())) == len(EXIT)
    assert not set(EXIT.values()) & set(range(1, 20)), "these are errors' codes"


@pytest.mark.parametrize(
    ("code", "exit_code", "said"),
    [
        ("print(input())", 0, "python: OK"),
        ("print(", 23, "python: CE"),
        ("raise SystemExit(7)", 24, "python: RE (exit code 7)"),
        ("while True: pass", 25, "python: TLE (CPU time)"),
        ("while True: print('x' * 999)", 27, "python: OLE"),
        ("f = open('x', 'wb')\nwhile True: f.write(b'x' * (1 << 20))", 28, "python: SV (disk)"),
    ],
)
def test_run_shows_the_output_and_ends_with_the_verdicts_code(
    runner: Runner, tmp_path: Path, code: str, exit_code: int, said: str
) -> None:
    given = written(tmp_path, "hello\n", "given")
    done = runner("sandbox", "run", written(tmp_path, code), "--stdin", given, "--seconds=0.5")
    assert done.exit_code == exit_code
    assert said in done.messages and "held by bubblewrap" in done.messages
    assert (done.output == "hello\n") == (exit_code == 0)


def test_run_as_json_is_one_object_with_the_reward(runner: Runner, tmp_path: Path) -> None:
    done = runner("sandbox", "run", written(tmp_path, "print(1)"), "--json").assert_ok()
    told = json.loads(done.output)
    assert (told["verdict"], told["reward"], told["lang"]) == ("OK", 1.0, "python")
    assert told["cases"][0]["stdout"] == "1\n" and "seccomp" in told["isolation"]["features"]


def test_check_shows_a_line_for_each_test(runner: Runner, tmp_path: Path) -> None:
    tests = written(
        tmp_path, '{"stdin": "4", "expected": "8"}\n\n{"stdin": "5", "expected": "11"}\n', "tests.jsonl"
    )
    done = runner("sandbox", "check", written(tmp_path, "print(int(input()) * 2)"), "--tests", tests)
    assert done.exit_code == 21
    assert "WA, 1 of 2 passed" in done.output
    lines = [line.split()[:2] for line in done.output.splitlines()[:2]]
    assert lines == [["1", "OK"], ["2", "WA"]]


def test_check_can_call_a_function(runner: Runner, tmp_path: Path) -> None:
    tests = written(tmp_path, '{"args": [4], "expected": 8}\n', "tests.jsonl")
    code = written(tmp_path, "def double(x): return 2 * x")
    runner("sandbox", "check", code, "--tests", tests, "--call", "double").assert_ok()


@pytest.mark.parametrize("line", ["[1]", "{", '{"stdln": "4"}'])
def test_a_test_that_is_none_is_named_with_its_line(runner: Runner, tmp_path: Path, line: str) -> None:
    tests = written(tmp_path, '{"stdin": "4"}\n' + line, "tests.jsonl")
    done = runner("sandbox", "check", written(tmp_path, "print(1)"), "--tests", tests)
    done.assert_failed("tests.jsonl:2", code="REQUEST")
    assert done.exit_code == 2


def test_a_missing_file_and_an_unknown_language_are_one_line(runner: Runner, tmp_path: Path) -> None:
    runner("sandbox", "run", str(tmp_path / "absent.py")).assert_failed("absent.py", code="FILE")
    code = written(tmp_path, "print(1)")
    runner("sandbox", "run", code, "--lang", "klingon").assert_failed("klingon", code="LANGUAGE")


def test_unsafe_needs_the_phrase_and_says_that_nothing_held_the_program(
    runner: Runner, tmp_path: Path
) -> None:
    code = written(tmp_path, "print(1)")
    refused = runner("sandbox", "run", code, "--level=unsafe")
    refused.assert_failed("run untrusted code without a sandbox", code="SANDBOX-UNSAFE")
    assert refused.exit_code == 8
    phrase = "--unsafe-phrase=run untrusted code without a sandbox"
    assert "NOTHING" in runner("sandbox", "run", code, "--level=unsafe", phrase).assert_ok().messages


def test_languages_says_what_is_here_and_what_brings_the_rest(runner: Runner) -> None:
    rows = json.loads(runner("sandbox", "languages", "--json").assert_ok().output)
    found = {row["id"]: row for row in rows}
    assert len(found) >= 16 and found["python"]["here"]
    assert all(row["packages"] for row in rows)


def test_doctor_runs_thirty_attacks_and_counts_those_held(runner: Runner) -> None:
    done = runner("sandbox", "doctor").assert_ok()
    assert "level strict, by bubblewrap" in done.output
    assert done.output.rstrip().endswith("30 of 30 held")


def test_a_language_model_is_asked_for_its_opinion_only_on_request(runner: Runner, tmp_path: Path) -> None:
    """A model of random weights says nothing in the asked form: its report is there, and empty."""
    code = written(tmp_path, "x = 1\n")
    words = ("sandbox", "analyze", code, "--category", "smell", "--json")
    told = json.loads(runner(*words).assert_ok().output)
    assert "judge" not in [one["tool"] for one in told["reports"]]
    told = json.loads(runner(*words, "--judge", "tiny-llama").assert_ok().output)
    [judged] = [one for one in told["reports"] if one["tool"] == "judge"]
    assert (judged["version"], judged["category"], judged["status"]) == ("tiny-llama", "smell", "ok")


def test_analyze_shows_each_category_and_names_what_is_missing(runner: Runner, tmp_path: Path) -> None:
    code = written(
        tmp_path, "import os\nx = int(input())\nif x > 2:\n    print('big')\nelse:\n    print(x)\n"
    )
    tests = written(tmp_path, '{"stdin": "1", "expected": "1"}\n', "tests.jsonl")
    done = runner("sandbox", "analyze", code, "--tests", tests, "--json").assert_ok()
    told = json.loads(done.output)
    assert told["lang"] == "python"
    categories = {report["category"] for report in told["reports"]}
    assert categories == {"basic", "smell", "bug", "coverage", "efficiency"}
    assert all(report["detail"] for report in told["reports"] if report["status"] == "absent")
    shown = runner("sandbox", "analyze", code, "--tests", tests, "--category", "coverage").assert_ok()
    assert "== coverage" in shown.output and "line 4" in shown.output
