"""Basic information: outlines, graphs and numbers, by hand and against radon."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import pytest

from llmfw.testing import plugin_module

analyze = plugin_module("mplsandbox", "analysis").analyze
tools_folder = plugin_module("mplsandbox", "analysis.tools").tools_folder
Sandbox = plugin_module("mplsandbox", "executor").Sandbox
Request = plugin_module("mplsandbox", "records").Request

PROGRAM = '''"""Doc of the module."""

import sys

LIMIT = 10  # the most


def grade(points, bonus=0):
    """Grade with a bonus.

    Two lines more.
    """
    total = points + bonus
    if total > LIMIT and bonus:
        return "A"
    elif total > LIMIT / 2:
        return "B"
    else:
        total -= 1
    # no luck
    return "C" if total else "D"


class Box:
    def __init__(self, size):
        self.size = size

    def fits(self, others):
        for other in others:
            try:
                if other.size >= self.size:
                    return False
            except AttributeError:
                continue
        while self.size < 0:
            self.size += 2 * LIMIT
        return all(x > 1 for x in others if x)


print(grade(int(sys.stdin.readline())))
'''


def basic(lab: Sandbox, reports: Any, code: str, lang: str, tool: str) -> Any:
    return reports.one(analyze(lab, Request(code=code, lang=lang), ["basic"]), "basic", tool)


def graph(report: Any, name: str) -> dict[str, Any]:
    return next(one for one in json.loads(report.artefacts["cfg"]) if one["name"] == name)


@pytest.fixture(scope="module")
def outlined(lab: Sandbox, reports: Any) -> Any:
    return basic(lab, reports, PROGRAM, "python", "llmfw-outline")


def test_numbers_of_a_python_program_are_those_counted_by_hand(outlined: Any) -> None:
    """40 lines: 10 blank, 1 of comment alone, 4 of text; the 25 left are code. ``grade`` has 2 if, 1 and, 1
    conditional expression: 5 ways; ``fits`` has for, except, if, while, a comprehension with if: 7.
    """
    got = outlined.metrics
    assert (got["lines"], got["blank"], got["code"], got["comments"]) == (40, 10, 25, 2)
    assert (got["functions"], got["classes"], got["complexity max"]) == (3, 1, 7)
    ways = {one["name"]: one["complexity"] for one in json.loads(outlined.artefacts["functions"])}
    assert ways == {"grade": 5, "Box.__init__": 1, "Box.fits": 7}


def test_halsteads_volume_is_length_times_the_logarithm_of_the_vocabulary(lab: Sandbox, reports: Any) -> None:
    """``a + b * a``: operators + and *, operands: a, the product, b, a: 3 different ones."""
    got = basic(lab, reports, "print(a + b * a)\n", "python", "llmfw-outline").metrics
    assert (got["halstead length"], got["halstead vocabulary"]) == (2 + 4, 2 + 3)
    assert got["halstead volume"] == pytest.approx(6 * math.log2(5))


def test_the_maintainability_index_is_radons(outlined: Any) -> None:
    if not (tools_folder() / "radon").is_dir():
        pytest.skip("radon isn't here: llmfw sandbox install-tools")
    asked = "import sys; from radon.metrics import mi_visit; print(mi_visit(sys.stdin.read(), True))"
    told = subprocess.run(
        [sys.executable, "-c", asked], input=PROGRAM, env={"PYTHONPATH": str(tools_folder())},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert outlined.metrics["maintainability"] == pytest.approx(float(told.stdout), abs=1e-9)


def test_the_graph_of_a_branch_in_a_loop_is_exact(lab: Sandbox, reports: Any) -> None:
    code = "def f(n):\n    while n:\n        if n > 2:\n            break\n        n -= 1\n    return n\n"
    report = basic(lab, reports, code, "python", "llmfw-outline")
    found = graph(report, "f")
    text = {one["id"]: one["text"] for one in found["nodes"]}
    assert {(text[a], text[b], label) for a, b, label in found["edges"]} == {
        ("start", "while n:", ""), ("while n:", "if n > 2:", "yes"), ("if n > 2:", "break", "yes"),
        ("if n > 2:", "n -= 1", "no"), ("n -= 1", "while n:", ""), ("while n:", "return n", "no"),
        ("break", "return n", ""), ("return n", "end", ""),
    }  # fmt: skip
    assert report.artefacts["cfg mermaid"].startswith("flowchart TD\n")
    assert report.artefacts["cfg dot"].startswith("digraph cfg {\n")


def test_a_raise_in_a_try_goes_to_its_handler(lab: Sandbox, reports: Any) -> None:
    code = (
        "try:\n    print(1)\n    raise ValueError\nexcept ValueError:\n    print(2)\nfinally:\n    print(3)\n"
    )
    found = graph(basic(lab, reports, code, "python", "llmfw-outline"), "module")
    text = {one["id"]: one["text"] for one in found["nodes"]}
    edges = {(text[a], text[b]) for a, b, _ in found["edges"]}
    assert {("print(1)", "except ValueError:"), ("print(2)", "print(3)"), ("print(3)", "end")} <= edges
    assert ("print(1)", "end") not in edges


COMPILED = {
    "c": ("int f(int n) { while (n > 3) { if (n == 7) return 1; n--; } return 0; }\n", "gcc", "f"),
    "java": (
        "class Main { static int f(int n) { while (n > 3) { if (n == 7) return 1; n--; } return 0; }\n"
        "public static void main(String[] a) {} }\n", "javap", "f",
    ),
    "rust": (
        "fn f(mut n: i64) -> i64 { while n > 3 { if n == 7 { return 1; } n = n ^ 1; } 0 }\n"
        "fn main() { f(1); }\n",
        "rustc", "f",
    ),
}  # fmt: skip


@pytest.mark.parametrize("lang", sorted(COMPILED))
def test_a_compilers_graph_of_a_loop_with_a_branch_has_three_ways(
    lab: Sandbox, reports: Any, lang: str
) -> None:
    """One loop and one if: McCabe's number, edges less nodes plus two, is 3."""
    code, tool, name = COMPILED[lang]
    found = graph(basic(lab, reports, code, lang, tool), name)
    assert len(found["edges"]) - len(found["nodes"]) + 2 == 3


def test_javascripts_functions_are_those_of_its_tree(lab: Sandbox, reports: Any) -> None:
    code = (
        "const f = (a) => a && 1;\nclass A { g(x) { if (x) return 1; for (;;) break; } }\nfunction h() {}\n"
    )
    report = basic(lab, reports, code, "javascript", "llmfw-outline")
    found = {
        one["name"]: (one["line"], one["complexity"]) for one in json.loads(report.artefacts["functions"])
    }
    assert found == {"f": (1, 2), "g": (2, 3), "h": (3, 1)}


def test_every_language_has_sizes(lab: Sandbox, reports: Any) -> None:
    """Also one without tools of its own: 3 lines, 1 of comment, 1 blank, a function with 2 ways."""
    report = basic(lab, reports, "# text\n\nf <- function(n) if (n > 3) 1 else 0\n", "r", "llmfw-sizes")
    got = report.metrics
    assert (got["lines"], got["comments"], got["blank"], got["functions"]) == (3, 1, 1, 1)
    assert got["complexity approximate"] == 2
