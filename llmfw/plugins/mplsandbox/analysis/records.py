"""What analysers found: one schema for every tool, language and category; plain values, all of them JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

Category = Literal["basic", "smell", "bug", "coverage", "efficiency"]
CATEGORIES: tuple[Category, ...] = get_args(Category)
Severity = Literal["error", "warning", "info"]
Status = Literal["ok", "failed", "absent"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One remark about a program.

    Attributes:
        rule: the tool's own name of what it found.
        line, column: the place, counted from 1; 0: none is known.
        symbol: the function, class or variable that it's about, where the tool says so.
    """

    tool: str
    category: Category
    rule: str
    severity: Severity
    message: str
    line: int = 0
    column: int = 0
    symbol: str = ""


@dataclass(frozen=True, kw_only=True)
class ToolReport:
    """What one tool said in one category.

    Attributes:
        status: ``failed``: it ran and broke, ``detail`` has its words; ``absent``: it isn't here, ``detail``
            says what installs it.
        metrics: numbers by name.
        artefacts: texts by name: outlines, graphs, tables as JSON.
    """

    tool: str
    version: str
    category: Category
    status: Status
    detail: str = ""
    findings: tuple[Finding, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    artefacts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """All reports on one program, in the order of the table of analysers."""

    lang: str
    reports: tuple[ToolReport, ...] = ()

    def of(self, category: Category) -> tuple[ToolReport, ...]:
        """The reports of a category."""
        return tuple(report for report in self.reports if report.category == category)

    def findings(self, *categories: Category) -> tuple[Finding, ...]:
        """All findings, or those of some categories, in the order of lines."""
        wanted = categories or CATEGORIES
        found = [one for report in self.reports if report.category in wanted for one in report.findings]
        return tuple(sorted(found, key=lambda one: (one.line, one.column)))

    def artefact(self, name: str) -> str:
        """The text of this name from the first tool that made one; empty where none did."""
        return next((report.artefacts[name] for report in self.reports if name in report.artefacts), "")

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        told: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return told
