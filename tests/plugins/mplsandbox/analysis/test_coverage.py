"""Coverage by lines: oracle 7 of the sheet, several cases, call and tests mode, runs that end badly."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmfw.testing import plugin_module

analyze = plugin_module("mplsandbox", "analysis").analyze
stretches = plugin_module("mplsandbox", "analysis.lines").stretches
analysers = plugin_module("mplsandbox", "analysis.table").analysers
Sandbox = plugin_module("mplsandbox", "executor").Sandbox
Case = plugin_module("mplsandbox", "records").Case
Limits = plugin_module("mplsandbox", "records").Limits
Request = plugin_module("mplsandbox", "records").Request

STRAIGHT = {
    "python": ("a = 1\nb = (\n    a +\n    1\n)\nprint(b)\n", "coverage.py"),
    "c": ("#include <stdio.h>\nint main(void) {\n  int a = 1;\n  puts(\"1\");\n  return a - 1;\n}\n", "gcov"),
    "bash": ("# a comment\na=1\nb=$((a + 1))\necho $b\n", "bash -x"),
    "lua": ("local a = 1\nlocal b = a + 1\nprint(b)\n", "lua hooks"),
    "perl": ("my $a = 1;\nmy $b = $a + 1;\nprint $b;\n", "perl -d"),
    "javascript": ("const a = 1;\nconst b = a + 1;\nconsole.log(b);\n", "v8"),
}  # fmt: skip
BRANCH = '''def sign(n):
    """Text is no code."""
    if n > 0:
        return 1
    elif n < 0:
        return -1
    return 0


def unused():
    global x
    x = 1
'''


def told(report: Any) -> dict[str, Any]:
    return json.loads(report.artefacts["coverage"])


@pytest.mark.parametrize("lang", sorted(STRAIGHT))
def test_a_program_without_branches_is_covered_wholly(lab: Sandbox, lang: str, reports: Any) -> None:
    code, tool = STRAIGHT[lang]
    analysis = analyze(lab, Request(code=code, lang=lang, cases=[Case()]), ["coverage"])
    report = reports.one(analysis, "coverage", tool)
    assert report.metrics["percent"] == 100
    assert told(report)["executable"]
    assert report.findings == ()


def test_cases_are_told_apart_and_put_together(lab: Sandbox, reports: Any) -> None:
    """1 takes the first branch, -1 the second; the last return and the other function nobody."""
    cases = [Case(args=[1]), Case(args=[-1])]
    request = Request(code=BRANCH, lang="python", mode="call", entry_point="sign", cases=cases)
    report = reports.one(analyze(lab, request, ["coverage"]), "coverage", "coverage.py")
    found = told(report)
    assert [one["missing"] for one in found["cases"]] == [[5, 6, 7, 12], [4, 7, 12]]
    assert (found["missing"], found["covered"]) == ([7, 12], [1, 3, 4, 5, 6, 10])
    assert report.metrics["percent"] == 75
    assert report.metrics["case 0 percent"] == 50


def test_a_test_programs_runs_count(lab: Sandbox, reports: Any) -> None:
    request = Request(
        code=BRANCH, lang="python", mode="tests", entry_point="sign", tests="assert candidate(0) == 0",
    )  # fmt: skip
    report = reports.one(analyze(lab, request, ["coverage"]), "coverage", "coverage.py")
    assert told(report)["missing"] == [4, 6, 12]


def test_our_own_tracer_says_what_coverage_py_says(
    lab: Sandbox, reports: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """Where the folder of tools is empty, ours takes over; both name the same lines."""
    code = (
        "import functools\n\n\n@functools.cache\ndef f(n):\n    try:\n        return 1 // n\n"
        "    except ZeroDivisionError:\n        return (\n            0\n        )\n    finally:\n"
        "        pass\n\n\n"
        "class A:\n    x = 1\n\n    def g(self): return 2\n\n\n"
        "for i in range(3):\n    f(i)\nelse:\n    y = 1\nwith open('/dev/null') as file:\n    file.read()\n"
    )
    request = Request(code=code, lang="python", cases=[Case()])
    theirs = told(reports.one(analyze(lab, request, ["coverage"]), "coverage", "coverage.py"))
    monkeypatch.setenv("LLMFW_SANDBOX_TOOLS", str(tmp_path))
    ours = told(reports.one(analyze(lab, request, ["coverage"]), "coverage", "llmfw-lines"))
    assert (ours["executable"], ours["covered"]) == (theirs["executable"], theirs["covered"])
    assert ours["hits"]["23"] == 3


def test_a_case_that_is_cut_off_is_named_and_the_others_count(lab: Sandbox, reports: Any) -> None:
    code = "n = int(input())\nwhile n:\n    pass\nprint(n)\n"
    limits = Limits(seconds=0.3)
    cases = [Case(stdin="0", limits=limits), Case(stdin="1", limits=limits)]
    analysis = analyze(lab, Request(code=code, lang="python", cases=cases), ["coverage"])
    report = reports.one(analysis, "coverage", "coverage.py")
    assert report.detail == "case 1: CPU time"
    assert told(report)["missing"] == [3]
    assert told(report)["cases"][1] is None


def test_counts_survive_a_crash_in_c(lab: Sandbox, reports: Any) -> None:
    """The division by zero ends it by a signal; what ran before is known."""
    code = '#include <stdio.h>\nint main(void) {\n  volatile int a = 0;\n  puts("x");\n  if (a) {\n    puts("y");\n  }\n  return 1 / a;\n}\n'  # noqa: E501
    analysis = analyze(lab, Request(code=code, lang="c", cases=[Case()]), ["coverage"])
    found = told(reports.one(analysis, "coverage", "gcov"))
    assert 6 in found["missing"] and {3, 4, 5} <= set(found["covered"])


def test_a_program_that_does_not_compile_fails_the_tool_in_its_words(lab: Sandbox) -> None:
    (report,) = analyze(lab, Request(code="int main( {", lang="c", cases=[Case()]), ["coverage"]).reports
    assert report.status == "failed"
    assert "main.c:1" in report.detail


def test_exit_codes_and_output_of_the_program_do_not_matter(lab: Sandbox, reports: Any) -> None:
    code = "import sys\nprint('{\"files\": 1}' * 1000)\nsys.exit(3)\n"
    analysis = analyze(lab, Request(code=code, lang="python", cases=[Case()]), ["coverage"])
    assert reports.one(analysis, "coverage", "coverage.py").metrics["percent"] == 100


def test_missing_lines_are_put_together_over_lines_that_cannot_run() -> None:
    assert stretches([2, 3, 5, 9], frozenset({1, 2, 3, 5, 7, 9})) == [(2, 5), (9, 9)]


def test_go_blocks_become_the_lines_that_hold_code() -> None:
    """A block from the opening brace of line 3 on holds line 4; the brace alone is no code."""
    by_go = plugin_module("mplsandbox", "analysis.lines").by_go

    code = "package main\n\nfunc f() {\n\tx := 1\n\n\t// text\n\t_ = x\n}\n"
    traced = by_go("mode: count\nx/main.go:3.10,8.2 2 5\n", code)
    assert (sorted(traced.executable), traced.hits[4]) == ([4, 7], 5)


def test_thirteen_languages_have_a_tracer() -> None:
    covered = {lang for one in analysers().values() if one.category == "coverage" for lang in one.languages}
    assert covered >= {
        "python", "c", "cpp", "java", "javascript", "typescript", "bash", "rust", "go", "perl", "ruby", "php",
        "lua",
    }  # fmt: skip
