"""Reports are untrusted: whatever a tool or a program writes, the host reads it in bounds or refuses it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmfw.testing import plugin_module

CATEGORIES = plugin_module("mplsandbox", "analysis").CATEGORIES
analyze = plugin_module("mplsandbox", "analysis").analyze
TRACERS = plugin_module("mplsandbox", "analysis.lines").TRACERS
coverage = plugin_module("mplsandbox", "analysis.lines").coverage
FINDINGS = plugin_module("mplsandbox", "analysis.parse").FINDINGS
PARSERS = plugin_module("mplsandbox", "analysis.parse").PARSERS
Analyser = plugin_module("mplsandbox", "analysis.table").Analyser
analysers = plugin_module("mplsandbox", "analysis.table").analysers
REPORT = plugin_module("mplsandbox", "analysis.untrusted").REPORT
Unreadable = plugin_module("mplsandbox", "analysis.untrusted").Unreadable
at = plugin_module("mplsandbox", "analysis.untrusted").at
clean = plugin_module("mplsandbox", "analysis.untrusted").clean
number = plugin_module("mplsandbox", "analysis.untrusted").number
parsed = plugin_module("mplsandbox", "analysis.untrusted").parsed
whole = plugin_module("mplsandbox", "analysis.untrusted").whole
Sandbox = plugin_module("mplsandbox", "executor").Sandbox
Case = plugin_module("mplsandbox", "records").Case
Request = plugin_module("mplsandbox", "records").Request

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from([
            "findings", "metrics", "artefacts", "messages", "results", "line", "rule", "message",
            "executable",
            "hits", "costs", "functions", "files", "lines", "error", "1", "name", "executed_lines", "count",
        ]),
        inner, max_size=5,
    ),
    max_leaves=30,
)  # fmt: skip
STATIC = [one for one in analysers().values() if not one.per_case and one.parser in PARSERS]


@given(JSON, st.sampled_from(STATIC))
@settings(max_examples=300, deadline=None)
def test_any_json_makes_findings_of_the_right_types(value: Any, analyser: Analyser) -> None:
    try:
        found = PARSERS[analyser.parser](json.dumps(value), analyser)
    except Unreadable:
        return
    for one in found.findings:
        assert isinstance(one.line, int) and one.line >= 0
        assert isinstance(one.message, str) and len(one.message) <= 500
    json.dumps([found.metrics, found.artefacts], allow_nan=False)


@given(JSON, st.sampled_from(sorted(TRACERS)))
@settings(max_examples=300, deadline=None)
def test_any_json_makes_a_coverage_of_whole_numbers(value: Any, tracer: str) -> None:
    try:
        traced = TRACERS[tracer](json.dumps(value), "x = 1\n")
    except Unreadable:
        return
    merged = coverage([traced], analysers()["gcov"])
    assert 0 <= merged.metrics["percent"] <= 100
    json.dumps(merged.artefacts, allow_nan=False)


@given(st.text())
def test_any_text_is_refused_or_read(text: str) -> None:
    for analyser in STATIC:
        try:
            PARSERS[analyser.parser](text, analyser)
        except Unreadable:
            continue


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, "\x00", "", "[1" + ",1" * REPORT],
    ids=["deep list", "deep table", "endless number", "no text", "nothing", "too long"],
)
def test_what_is_no_bounded_json_is_refused(text: str) -> None:
    with pytest.raises(Unreadable):
        parsed(text)


def test_control_characters_and_direction_marks_are_gone() -> None:
    assert clean("a\x1b[31mred\x07\u202eb\x9b") == "a[31mred  b "
    assert len(clean("x" * 10_000)) == 500


def test_numbers_are_finite_and_lines_are_whole() -> None:
    assert [number(one) for one in (float("nan"), float("inf"), True, "1", 10**400)] == [None] * 5
    assert [whole(one) for one in (-1, 2.9, "7", "x", None, 10**30, True)] == [0, 2, 7, 0, 0, 10_000_000, 0]


def test_paths_lead_nowhere_in_the_wrong_shape() -> None:
    assert at({"a": [{"b": 1}]}, "a.0.b") == 1
    assert at({"x": {"b": 1}}, "*.b") == 1
    assert [at(one, "a.0.b") for one in (None, 1, "a", [], {"a": {}}, {"a": []})] == [None] * 6


def test_a_flood_of_findings_is_cut() -> None:
    line = "main.c:1:2:error:rule%d:" + " [-W" * 200
    text = "\n".join(line % index for index in range(4000))
    for name in ("cppcheck-bug", "gcc-bug"):
        assert len(PARSERS["pattern"](text, analysers()[name]).findings) <= FINDINGS


HOSTILE = {
    "binary": ("python", "basic smell", "\x00\xff\x80" * 1000),
    "deep brackets": ("python", "basic bug", "(" * 50_000),
    "deep operators": ("python", "basic coverage", "x = " + "-" * 100_000 + "1"),
    "deep arrays": ("javascript", "basic coverage", "[" * 100_000),
    "an endless header": ("c", "coverage", '#include "/dev/zero"\nint main(void) { return 0; }\n'),
    "deep substitutions": ("bash", "bug", "echo " + "$(" * 20_000),
    "a report of its own": ("bash", "coverage", "rm -f /tmp/trace; ln -s /etc/passwd /tmp/trace"),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_a_hostile_program_leaves_failed_reports_at_worst(lab: Sandbox, name: str) -> None:
    lang, categories, code = HOSTILE[name]
    request = Request(code=code, lang=lang, cases=[Case()])
    analysis = analyze(lab, request, [one for one in CATEGORIES if one in categories.split()], seconds=1)
    assert {one.status for one in analysis.reports} <= {"ok", "failed", "absent"}
    assert all(one.detail for one in analysis.reports if one.status == "failed")


def test_modules_beside_the_program_do_not_get_into_the_analysers(lab: Sandbox, reports: Any) -> None:
    """A json.py in the folder would stand in for Python's own, were the folder looked through first."""
    request = Request(
        code="import os\n", lang="python", files={"json.py": "raise SystemExit(9)", "ast.py": "1/0"}
    )
    analysis = analyze(lab, request, ["basic", "smell"])
    assert reports.one(analysis, "basic", "llmfw-outline").metrics["lines"] == 1
    assert [one.rule for one in reports.one(analysis, "smell", "vulture").findings] == ["unused import"]
