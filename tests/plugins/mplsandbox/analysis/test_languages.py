"""Every language: what is planted is found, on its line, in one schema; and coverage names the lines."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from llmfw.testing import plugin_module

pytestmark = pytest.mark.slow

Analysis = plugin_module("mplsandbox", "analysis").Analysis
Category = plugin_module("mplsandbox", "analysis").Category
analyze = plugin_module("mplsandbox", "analysis").analyze
Sandbox = plugin_module("mplsandbox", "executor").Sandbox
language = plugin_module("mplsandbox", "languages").language
Case = plugin_module("mplsandbox", "records").Case
Request = plugin_module("mplsandbox", "records").Request

PLANTED: dict[str, dict[str, Any]] = tomllib.loads((Path(__file__).parent / "planted.toml").read_text())
for row in PLANTED.values():
    row["code"] = row["code"] if row["code"].startswith("<?php") else "\n" + row["code"]


@pytest.fixture(scope="module", params=sorted(PLANTED))
def lang(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if absent := language(name).missing():
        pytest.skip(f"{', '.join(absent)} isn't here: apt-get install {' '.join(language(name).packages)}")
    return name


@pytest.fixture(scope="module")
def analysis(lab: Sandbox, lang: str) -> Analysis:
    """In the categories in which something is planted."""
    planted = PLANTED[lang]
    categories: list[Category] = ["coverage", *(one for one in ("smell", "bug") if one in planted)]
    request = Request(code=planted["code"], lang=lang, cases=[Case(stdin="2\n")])
    return analyze(lab, request, categories)


@pytest.mark.parametrize("category", ["smell", "bug"])
def test_what_is_planted_is_found_where_it_is(
    analysis: Analysis, lang: str, category: Category, reports: Any
) -> None:
    absent = []
    for tool, rule, line in PLANTED[lang].get(category, ()):
        report = next(one for one in analysis.of(category) if one.tool == tool)
        if report.status == "absent":
            absent.append(report.detail)
            continue
        report = reports.one(analysis, category, tool)
        found = [(one.rule, one.line) for one in report.findings]
        assert (rule, line) in found
        assert all(one.message and one.category == category for one in report.findings)
        assert report.version
    if absent:
        pytest.skip("; ".join(absent))


def test_coverage_names_the_lines_that_one_input_leaves_out(
    analysis: Analysis, lang: str, reports: Any
) -> None:
    planted = PLANTED[lang]
    report = reports.one(analysis, "coverage", planted["coverage"])
    told = json.loads(report.artefacts["coverage"])
    assert told["missing"] == planted["missing"]
    if "executable" in planted:
        assert told["executable"] == planted["executable"]
    assert report.metrics["percent"] == pytest.approx(100 * len(told["covered"]) / len(told["executable"]))
    assert {one.line for one in report.findings} <= set(planted["missing"])


def test_an_analysis_is_json(analysis: Analysis) -> None:
    assert json.loads(json.dumps(analysis.to_dict())) == analysis.to_dict()
    assert len(analysis.to_dict()["reports"]) == len(analysis.reports)
