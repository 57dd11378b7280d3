"""Named parsers of what analysers print: from a tool's words to findings, metrics and artefacts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .records import Finding, Severity
from .table import Analyser
from .untrusted import (
    ARTEFACT,
    COUNT,
    LINE,
    REPORT,
    Unreadable,
    at,
    clean,
    number,
    parsed,
    rows,
    table,
    whole,
    words,
)  # fmt: skip

FINDINGS = 500
"""Findings that a report keeps."""
LINES = 5000
"""Lines of a report that are matched against a pattern."""
_SEVERITIES: Mapping[str, Severity] = {
    **dict.fromkeys(("error", "fatal", "critical", "high", "2", "e", "f"), "error"),
    **dict.fromkeys(("warning", "warn", "medium", "performance", "portability", "1", "w"), "warning"),
    **dict.fromkeys(
        ("note", "help", "info", "style", "convention", "refactor", "low", "information"), "info"
    ),
}
_NAME = re.compile(r"[\w .:/()-]{1,80}\Z")


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """What a report holds."""

    findings: tuple[Finding, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    artefacts: Mapping[str, str] = field(default_factory=dict)


def severity(told: Any, analyser: Analyser) -> Severity:
    """A tool's word for how bad it is, as ours."""
    levels: Mapping[str, Severity] = analyser.parse.get("levels", {})
    told = words(told, 40).lower()
    return levels.get(told) or _SEVERITIES.get(told, "warning")


def _finding(analyser: Analyser, take: Callable[[str], Any]) -> Finding | None:
    """A finding of a tool's fields; None where the table says that another category has it."""
    options = analyser.parse
    native = words(take("severity"), 40)
    rule = words(take("rule"), 120) or options.get("rule", "")
    kind = words(take("kind"), 60) or native
    if ("only" in options and kind not in options["only"]) or kind in options.get("but", ()):
        return None
    if re.match(options.get("skip", r"\Z."), rule):
        return None
    return Finding(
        tool=analyser.tool, category=analyser.category, rule=rule,
        severity=severity(native, analyser), line=whole(take("line")),
        message=words(take("message")) or options.get("message", ""),
        column=whole(take("column")) + options.get("column_from", 0), symbol=words(take("symbol"), 120),
    )  # fmt: skip


def _kept(found: Iterator[Finding | None]) -> tuple[Finding, ...]:
    kept: dict[Finding, None] = {}
    for one in found:
        if one is not None:
            kept[one] = None
        if len(kept) >= FINDINGS:
            break
    return tuple(kept)


def by_json(text: str, analyser: Analyser) -> Parsed:
    """One JSON document; ``items``: where its findings are, ``fields``: what of a finding is where."""
    found = rows(at(parsed(text), analyser.parse.get("items", "")))
    return Parsed(findings=_kept(_by_fields(found, analyser)))


def by_lines_of_json(text: str, analyser: Analyser) -> Parsed:
    """A JSON document a line; other lines are the tool's chatter."""
    if len(text) > REPORT:
        raise Unreadable(f"its report has more than {REPORT >> 20} MiB")
    found = [parsed(line) for line in text.splitlines()[:COUNT] if line.startswith("{")]
    return Parsed(findings=_kept(_by_fields(found, analyser)))


def _by_fields(found: list[Any], analyser: Analyser) -> Iterator[Finding | None]:
    fields: Mapping[str, str] = analyser.parse["fields"]
    for item in filter(None, map(table, found)):
        yield _finding(analyser, {name: at(item, path) for name, path in fields.items()}.get)


def by_pattern(text: str, analyser: Analyser) -> Parsed:
    """Lines that match ``pattern``, whose groups are a finding's fields."""
    pattern = re.compile(analyser.parse["pattern"])

    def found() -> Iterator[Finding | None]:
        for line in clean(text, REPORT).splitlines()[:LINES]:
            if match := pattern.match(line[:LINE]):
                groups = match.groupdict()
                yield _finding(analyser, groups.get)

    return Parsed(findings=_kept(found()))


def by_native(text: str, analyser: Analyser) -> Parsed:
    """Our own scripts' form: ``{"findings": [...], "metrics": {...}, "artefacts": {...}}``."""
    told = table(parsed(text))
    if wrong := told.get("error"):
        raise Unreadable(words(wrong))
    found = _kept(
        _finding(analyser, table(item).get) for item in rows(told.get("findings")) if isinstance(item, dict)
    )
    metrics = {
        name: value
        for name, raw in list(table(told.get("metrics")).items())[:COUNT]
        if _NAME.match(name) and (value := number(raw)) is not None
    }
    artefacts = {
        name: clean(raw, ARTEFACT)
        for name, raw in list(table(told.get("artefacts")).items())[:20]
        if _NAME.match(name) and isinstance(raw, str)
    }
    return Parsed(findings=found, metrics=metrics, artefacts=artefacts)


PARSERS: Mapping[str, Callable[[str, Analyser], Parsed]] = {
    "json": by_json,
    "jsonl": by_lines_of_json,
    "pattern": by_pattern,
    "native": by_native,
}
