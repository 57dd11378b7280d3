"""Coverage and cost by lines: reading what tracers say of one case, and putting cases together."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .parse import Parsed
from .records import Finding
from .table import Analyser
from .untrusted import REPORT, Unreadable, at, number, parsed, rows, table, whole, words

_LINES = 100_000
"""A program's lines that count."""
_HOT = 5
"""Lines and functions that are named as dear."""
_LEAST = {"seconds": 0.02, "MiB": 0.5, "instructions": 1000.0}
"""Programs that cost less have no dear lines: it's start-up and noise."""


@dataclass(frozen=True, kw_only=True)
class Function:
    """What one function cost; calls 0: they weren't counted."""

    name: str
    line: int = 0
    calls: int = 0
    cost: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Traced:
    """One case: lines that can run, how often each ran, and what lines and functions cost."""

    executable: frozenset[int] = frozenset()
    hits: Mapping[int, int] = field(default_factory=dict)
    costs: Mapping[int, float] = field(default_factory=dict)
    functions: tuple[Function, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def covered(self) -> frozenset[int]:
        """Lines that can run and did."""
        return frozenset(line for line in self.executable if self.hits.get(line))


def share(covered: frozenset[int], executable: frozenset[int]) -> float:
    """Percent of lines that ran; of none that can run, 100."""
    return 100.0 * len(covered) / len(executable) if executable else 100.0


# One case, by the name of the parser in the table.


def by_native(text: str, code: str) -> Traced:
    """Our scripts' form: ``executable`` lines, ``hits`` and ``costs`` by line, ``functions``, ``metrics``."""
    told = table(parsed(text))
    if wrong := told.get("error"):
        raise Unreadable(words(wrong))
    return Traced(
        executable=frozenset(filter(None, map(whole, rows(told.get("executable"), _LINES)))),
        hits=_counts(told.get("hits")),
        costs=dict(_numbers(told.get("costs"))),
        functions=tuple(
            Function(
                name=words(one.get("name"), 120), line=whole(one.get("line")),
                calls=whole(one.get("calls"), 10**15),
                cost=number(one.get("cost")) or 0.0,
            )
            for one in map(table, rows(told.get("functions"), 200))
        ),
        metrics={
            words(name, 60): value
            for name, raw in list(table(told.get("metrics")).items())[:50]
            if (value := number(raw)) is not None
        },
    )  # fmt: skip


def _numbers(value: Any) -> list[tuple[int, float]]:
    found = [(whole(line), number(raw)) for line, raw in list(table(value).items())[:_LINES]]
    return [(line, count) for line, count in found if line and count is not None]


def _counts(value: Any) -> dict[int, int]:
    return {line: min(int(count), 10**15) for line, count in _numbers(value) if count > 0}


def by_gcov(text: str, code: str) -> Traced:
    """JSON of gcov: the lines of the program's own file."""
    own: dict[int, int] = {}
    for document in text.splitlines()[:8]:
        for file in map(table, rows(at(parsed(document), "files"), 100)):
            if words(file.get("file")).rpartition("/")[2].startswith("main."):
                for line in map(table, rows(file.get("lines"), _LINES)):
                    count = whole(line.get("count"), 10**15)
                    own[whole(line.get("line_number"))] = max(
                        own.get(whole(line.get("line_number")), 0), count
                    )
    if not own:
        raise Unreadable("it tells nothing of the program")
    return Traced(executable=frozenset(own), hits=own)


def by_coverage_py(text: str, code: str) -> Traced:
    """JSON of coverage.py."""
    told = table(at(parsed(text), "files.*"))
    ran = [whole(line) for line in rows(told.get("executed_lines"), _LINES)]
    missing = [whole(line) for line in rows(told.get("missing_lines"), _LINES)]
    if not ran and not missing and "summary" not in told:
        raise Unreadable("it tells nothing of the program")
    return Traced(executable=frozenset((*ran, *missing)), hits=dict.fromkeys(ran, 1))


_BLOCK = re.compile(r"\S*main\.go:(\d{1,7})\.(\d{1,7}),(\d{1,7})\.(\d{1,7}) (\d{1,7}) (\d{1,15})\Z")


def by_go(text: str, code: str) -> Traced:
    """A profile of ``go test``: a block a line. The lines of a block are those with code on them."""
    if len(text) > REPORT:
        raise Unreadable("its profile is too long")
    source, executable, hits = code.splitlines(), set[int](), dict[int, int]()
    for block in text.splitlines()[:_LINES]:
        if match := _BLOCK.match(block[:500]):
            first, column, last, _, statements, count = map(int, match.groups())
            for line in range(first, min(last, len(source)) + 1) if statements else ():
                written = (
                    source[line - 1].encode()[column - 1 :] if line == first else source[line - 1].encode()
                )
                if re.search(rb"[\w\"'`]", re.sub(rb"//.*|\belse\b|\bcase\b.*:|\bdefault:", b"", written)):
                    executable.add(line)
                    hits[line] = max(hits.get(line, 0), count)
    if not executable:
        raise Unreadable("its profile is empty")
    return Traced(executable=frozenset(executable), hits=hits)


TRACERS: Mapping[str, Callable[[str, str], Traced]] = {
    "lines": by_native,
    "gcov": by_gcov,
    "coverage.py": by_coverage_py,
    "go-cover": by_go,
}


# All cases together.


def coverage(cases: Sequence[Traced | None], analyser: Analyser) -> Parsed:
    """Which lines the cases ran: each case's and the union. None: a case that left no report."""
    seen = [one for one in cases if one is not None]
    executable = frozenset[int]().union(*(one.executable for one in seen))
    covered = frozenset[int]().union(*(one.covered for one in seen))
    missing = sorted(executable - covered)
    hits: dict[int, int] = {}
    for one in seen:
        for line, count in one.hits.items():
            hits[line] = hits.get(line, 0) + count
    told = {
        "executable": sorted(executable), "covered": sorted(covered), "missing": missing,
        "percent": share(covered, executable),
        "cases": [
            None if one is None
            else {"covered": sorted(one.covered), "missing": sorted(executable - one.covered),
                  "percent": share(one.covered, executable)}
            for one in cases
        ],
        "hits": {str(line): hits[line] for line in sorted(hits) if line in executable},
    }  # fmt: skip
    findings = tuple(
        Finding(
            tool=analyser.tool, category="coverage", rule="uncovered", severity="info", line=first,
            message="no case runs " + (f"line {first}" if first == last else f"lines {first} to {last}"),
        )
        for first, last in stretches(missing, executable)
    )  # fmt: skip
    metrics = {
        "percent": share(covered, executable), "executable": float(len(executable)),
        "covered": float(len(covered)), "missing": float(len(missing)), "cases": float(len(cases)),
        **{f"case {i} percent": share(one.covered, executable) for i, one in enumerate(cases) if one},
    }  # fmt: skip
    return Parsed(findings=findings[:100], metrics=metrics, artefacts={"coverage": json.dumps(told)})


def stretches(missing: Sequence[int], executable: frozenset[int]) -> list[tuple[int, int]]:
    """Runs of missing lines; lines that can't run don't part them."""
    found: list[tuple[int, int]] = []
    order = sorted(executable)
    place = {line: index for index, line in enumerate(order)}
    for line in missing:
        if found and place[line] == place[found[-1][1]] + 1:
            found[-1] = (found[-1][0], line)
        else:
            found.append((line, line))
    return found


def costs(cases: Sequence[Traced | None], analyser: Analyser) -> Parsed:
    """What lines and functions cost over all cases, in the unit that the table names."""
    unit: str = analyser.parse.get("unit", "seconds")
    lines: dict[int, float] = {}
    functions: dict[tuple[str, int], Function] = {}
    metrics: dict[str, float] = {}
    for one in filter(None, cases):
        for line, cost in one.costs.items():
            lines[line] = lines.get(line, 0.0) + cost
        for new in one.functions:
            old = functions.get((new.name, new.line), Function(name=new.name, line=new.line))
            functions[new.name, new.line] = Function(
                name=new.name, line=new.line, calls=old.calls + new.calls, cost=old.cost + new.cost
            )
        for name, value in one.metrics.items():
            metrics[name] = max(metrics.get(name, -math.inf), value)
    dear = sorted(functions.values(), key=lambda one: (-one.cost, one.line, one.name))
    told = {
        "unit": unit,
        "lines": {str(line): lines[line] for line in sorted(lines)},
        "functions": [vars(one) for one in dear],
    }
    return Parsed(
        findings=(*_hot_lines(lines, unit, analyser), *_hot_functions(dear, unit, analyser)),
        metrics={unit: sum(lines.values()) or sum(one.cost for one in dear), **metrics},
        artefacts={"profile": json.dumps(told)},
    )


def _hot_lines(lines: Mapping[int, float], unit: str, analyser: Analyser) -> list[Finding]:
    total = sum(lines.values())
    first = sorted(lines.items(), key=lambda one: (-one[1], one[0]))[:_HOT]
    return [
        Finding(
            tool=analyser.tool, category="efficiency", rule="dear-line", severity="info", line=line,
            message=f"{cost / total:.0%} of {unit} ({_short(cost)}) are spent on this line",
        )
        for line, cost in first if total >= _LEAST[unit] and cost >= 0.1 * total
    ]  # fmt: skip


def _hot_functions(functions: Sequence[Function], unit: str, analyser: Analyser) -> list[Finding]:
    total = sum(one.cost for one in functions)
    return [
        Finding(
            tool=analyser.tool, category="efficiency", rule="dear-function", severity="info", line=one.line,
            symbol=one.name,
            message=f"{one.cost / total:.0%} of {unit} ({_short(one.cost)}) are spent in {one.name}"
            + (f", called {one.calls} times" if one.calls > 1 else ""),
        )
        for one in functions[:_HOT] if total >= _LEAST[unit] and one.cost >= 0.1 * total
    ]  # fmt: skip


def _short(cost: float) -> str:
    return f"{cost:.0f}" if cost >= 100 else f"{cost:.3g}"
