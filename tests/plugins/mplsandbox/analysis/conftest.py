"""Reports that are skipped where their tool isn't here."""

from __future__ import annotations

import pytest

from llmfw.testing import plugin_module

Analysis = plugin_module("mplsandbox", "analysis").Analysis
Category = plugin_module("mplsandbox", "analysis").Category
ToolReport = plugin_module("mplsandbox", "analysis").ToolReport


class Reports:
    """Looks up a tool's report; a tool that isn't here skips the test, one that broke fails it."""

    @staticmethod
    def one(analysis: Analysis, category: Category, tool: str) -> ToolReport:
        found = [one for one in analysis.of(category) if one.tool == tool]
        assert found, f"{tool} reports nothing in {category}: {[one.tool for one in analysis.of(category)]}"
        if found[0].status == "absent":
            pytest.skip(found[0].detail)
        assert found[0].status == "ok", found[0].detail
        return found[0]


@pytest.fixture(scope="session")
def reports() -> type[Reports]:
    """The look-up."""
    return Reports
