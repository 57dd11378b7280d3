"""What ``llmfw evaluate`` measured of the runs of a comparison: rows of metrics, and what to know of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmfw.core.tracking.evaluations import Entry, newest
from llmfw.core.tracking.sides import Side

PREFIX = "evaluate/"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A metric that was measured afterwards; ``values`` by the side's index."""

    name: str
    metric: str
    """The metric's own name, without what tells rows apart."""
    values: Mapping[int, float]


@dataclass(frozen=True, kw_only=True)
class Afterwards:
    """``rows``: what was measured under the same conditions; ``notes``: when, of what, and under what."""

    rows: Sequence[Row] = ()
    notes: Sequence[str] = ()


def afterwards(sides: Sequence[Side]) -> Afterwards:
    """The newest of equal measurements of each run, in one row where their conditions are the same."""
    shown = {index: list(newest(side.evaluations).values()) for index, side in enumerate(sides)}
    keys = list(dict.fromkeys(entry.key for entries in shown.values() for entry in entries))
    values: dict[tuple[str, str], dict[int, float]] = {}
    for index, entries in shown.items():
        for entry in entries:
            mark = f" [{keys.index(entry.key) + 1}]" if len(keys) > 1 else ""
            mark += _weights(sides[index], entry)
            for metric, value in entry.metrics.items():
                head, part = _parts(metric, entry.metrics)
                values.setdefault((f"{head}{mark}{part}", head + part), {})[index] = value
    return Afterwards(
        rows=[
            Row(name=f"{PREFIX}{name}", metric=metric, values=found)
            for (name, metric), found in values.items()
        ],
        notes=[*_measured(sides, shown, keys), *_conditions(shown, keys)],
    )


def _parts(metric: str, metrics: Mapping[str, float]) -> tuple[str, str]:
    """(the estimate's name, "/low", "/high" or "/n"); a mark stands between them."""
    head, slash, part = metric.rpartition("/")
    return (head, slash + part) if part in ("low", "high", "n") and head in metrics else (metric, "")


def _weights(side: Side, entry: Entry) -> str:
    """Says so where other weights were measured than those that the run ended with."""
    last = entry.weights == "final" or side.record.verb == "evaluate" or entry.step == side.view.last_step
    return "" if last else f" at step {entry.step}"


def _measured(sides: Sequence[Side], shown: Mapping[int, Sequence[Entry]], keys: Sequence[str]) -> list[str]:
    notes: list[str] = []
    for index, entries in shown.items():
        side = sides[index]
        for entry in entries:
            equal = [one for one in side.evaluations if (one.key, one.weights) == (entry.key, entry.weights)]
            mark = f"[{keys.index(entry.key) + 1}] " if len(keys) > 1 else ""
            others = f"; the newest of {len(equal)} equal measurements" if len(equal) > 1 else ""
            under = "".join(f", {key}={value}" for key, value in entry.changed.items())
            data = f" on {entry.data}" if entry.data else ""
            notes.append(
                f"{mark}{side.label} was measured at {entry.time[:16].replace('T', ' ')}, {entry.weights}"
                f"{data}{under}{others}"
            )
    return notes


def _conditions(shown: Mapping[int, Sequence[Entry]], keys: Sequence[str]) -> list[str]:
    """In what the numbered conditions differ."""
    if len(keys) < 2:
        return []
    of = {entry.key: entry.conditions for entries in shown.values() for entry in entries}
    names = list(dict.fromkeys(name for conditions in of.values() for name in conditions))
    differing = [name for name in names if len({str(of[key].get(name)) for key in keys}) > 1]
    return [
        f"[{number}] means "
        + (", ".join(f"{name} {of[key].get(name)}" for name in differing) or "other plugins")
        for number, key in enumerate(keys, 1)
    ]
