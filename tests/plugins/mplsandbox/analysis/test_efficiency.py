"""What programs cost: growth by hand, dear lines and functions, memory."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmfw.testing import plugin_module

analyze = plugin_module("mplsandbox", "analysis").analyze
growth = plugin_module("mplsandbox", "analysis.efficiency").growth
size = plugin_module("mplsandbox", "analysis.efficiency").size
Sandbox = plugin_module("mplsandbox", "executor").Sandbox
Case = plugin_module("mplsandbox", "records").Case
Request = plugin_module("mplsandbox", "records").Request


def test_growth_is_the_slope_on_logarithms() -> None:
    """Start-up 0.02 s, then 1e-6 n^2: from 1000 to 2000 four times as much."""
    assert growth([10, 1000, 2000], [0.02, 1.02, 4.02]) == pytest.approx(2)


def test_short_runs_have_no_growth() -> None:
    assert growth([10, 1000, 2000], [0.02, 0.03, 0.04]) is None
    assert growth([], []) is None
    assert growth([5, 5, 5], [0.1, 1.0, 2.0]) is None


def test_the_size_of_a_case_is_that_of_its_input() -> None:
    assert (size(Case(stdin="é\n")), size(Case(args=[1, 2]))) == (3, len("[[1, 2], {}]"))


@pytest.fixture(scope="module")
def spent(lab: Sandbox) -> Any:
    code = (
        "def dear():\n    total = 0\n    for i in range(300000):\n        total += i\n    return total\n\n\n"
        "def cheap():\n    return 1\n\n\nheap = [0] * 400000\ndear()\ncheap()\n"
    )
    return analyze(lab, Request(code=code, lang="python", cases=[Case()]), ["efficiency"])


def test_the_dear_function_is_named(spent: Any, reports: Any) -> None:
    report = reports.one(spent, "efficiency", "cProfile")
    found = {(one.rule, one.symbol, one.line) for one in report.findings}
    assert ("dear-function", "dear", 1) in found
    assert {symbol for _, symbol, _ in found} <= {"dear", "<module>"}, "on a busy machine both take long"


def test_the_dear_lines_are_named(spent: Any, reports: Any) -> None:
    report = reports.one(spent, "efficiency", "llmfw-lines")
    assert {one.line for one in report.findings} <= {3, 4}
    assert json.loads(report.artefacts["profile"])["unit"] == "seconds"


def test_the_line_that_holds_the_memory_is_named(spent: Any, reports: Any) -> None:
    """400,000 places of 8 bytes: 3.05 MiB."""
    report = reports.one(spent, "efficiency", "tracemalloc")
    assert [one.line for one in report.findings] == [12]
    assert report.metrics["MiB"] == pytest.approx(400000 * 8 / 2**20, rel=0.05)
    assert report.metrics["peak MiB"] >= report.metrics["MiB"]


def test_each_case_has_its_time_and_memory(spent: Any, reports: Any) -> None:
    report = reports.one(spent, "efficiency", "sandbox")
    (case,) = json.loads(report.artefacts["cases"])
    assert case["seconds"] == report.metrics["case 0 seconds"] > 0
    assert report.metrics["MiB"] > 3


def test_instructions_of_a_compiled_line_are_counted(lab: Sandbox, reports: Any) -> None:
    code = (
        "#include <stdio.h>\nint main(void) {\n  volatile long s = 0;\n  for (int i = 0; i < 10000; i++)\n"
        '    s += i;\n  printf("%ld", s);\n}\n'
    )
    analysis = analyze(lab, Request(code=code, lang="c", cases=[Case()]), ["efficiency"])
    report = reports.one(analysis, "efficiency", "callgrind")
    costs = json.loads(report.artefacts["profile"])["lines"]
    assert costs["5"] >= 10000
    assert report.findings[0].line in (4, 5)
