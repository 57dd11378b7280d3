"""Reads a journal: one value per name and step, however often the run was killed and resumed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmfw.core.costs.record import PREFIXES
from llmfw.core.errors import DataError
from llmfw.core.tracking.journal import decode

UNREPEATABLE = ("time/", "sys/", "throughput/", *PREFIXES)
"""Prefixes of series that differ between two equal runs."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """A line that is neither metric nor header. ``undone``: it belongs to a step that a rewind took back."""

    kind: str
    fields: Mapping[str, Any]
    wall: float
    undone: bool = False


@dataclass(frozen=True, kw_only=True)
class JournalView:
    """What a journal says."""

    series: Mapping[str, list[tuple[int, float]]]
    """name -> (step, value), steps rising, one value a step."""
    events: Sequence[Event]
    params: Mapping[str, Any]
    """What ``log_hyperparams`` or a ``params`` event gave, later ones winning."""
    last_step: int
    """Largest step that has a value and wasn't taken back; 0: none."""
    seconds: float
    """Time that processes spent between their first and last line, without the pauses between them."""
    damaged: tuple[int, ...] = field(default=())
    """Numbers of lines (from 1) that couldn't be read; empty unless the disk lost something."""

    def final(self, name: str) -> float | None:
        """The last value of a series."""
        points = self.series.get(name)
        return points[-1][1] if points else None

    def of(self, kind: str) -> list[Event]:
        """Events of a kind that still count."""
        return [event for event in self.events if event.kind == kind and not event.undone]

    def digest(self, exclude: Sequence[str] = UNREPEATABLE) -> str:
        """SHA-256 over (name, step, ``float.hex()``): equal for two runs that computed the same."""
        sums = hashlib.sha256()
        for name in sorted(self.series):
            if not name.startswith(tuple(exclude)):
                for step, value in self.series[name]:
                    sums.update(f"{name}\t{step}\t{value.hex()}\n".encode())
        return sums.hexdigest()


def read_journal(path: str | Path) -> JournalView:
    """Read a journal, also one that is still being written; a torn last line is left out.

    Raises:
        DataError: there is no such file.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(
            "JOURNAL",
            f"the journal can't be read ({error.strerror})",
            file=path,
            mend="name the folder of a run",
        ) from error
    fold = Fold()
    fold.take(raw[: raw.rfind(b"\n") + 1])
    return fold.view()


class Fold:
    """Takes lines one by one and keeps what counts."""

    def __init__(self) -> None:
        self.points: dict[str, dict[int, tuple[float, float]]] = {}
        """name -> step -> (value, wall)."""
        self.params: dict[str, Any] = {}
        self._events: list[Event] = []
        self._damaged: list[int] = []
        self._line = 0
        self._seconds = 0.0
        self._begun: float | None = None
        self._mono = 0.0

    def take(self, raw: bytes) -> None:
        """Take whole lines."""
        for number, record in parse(raw, self._line + 1):
            self._line = number
            if record is None:
                self._damaged.append(number)
            else:
                try:
                    self._take(record)
                except (KeyError, TypeError, ValueError, AttributeError):
                    self._damaged.append(number)

    def _take(self, record: dict[str, Any]) -> None:
        kind, wall = record["t"], float(record.get("wall", 0.0))
        mono = float(record.get("mono", 0.0))
        if kind == "journal":
            self._end_session()
            self._begun = mono
        self._mono = mono
        if kind == "metrics":
            for name, point in values_of(record).items():
                self.points.setdefault(name, {})[record["step"]] = (point, wall)
        elif kind != "journal":
            fields = {key: value for key, value in record.items() if key not in ("t", "wall", "mono")}
            if kind == "rewind":
                self._rewind(int(record["step"]))
            elif kind == "params":
                self.params.update(fields.get("values", {}))
            self._events.append(Event(kind=kind, fields=fields, wall=wall))

    def _rewind(self, step: int) -> None:
        for points in self.points.values():
            for late in [number for number in points if number > step]:
                del points[late]
        self._events = [
            Event(kind=event.kind, fields=event.fields, wall=event.wall, undone=True)
            if isinstance(event.fields.get("step"), int)
            and event.fields["step"] > step
            and event.kind != "rewind"
            else event
            for event in self._events
        ]

    def _end_session(self) -> None:
        if self._begun is not None:
            self._seconds += max(0.0, self._mono - self._begun)

    def view(self) -> JournalView:
        """What was taken so far."""
        open_for = max(0.0, self._mono - self._begun) if self._begun is not None else 0.0
        series = {
            name: [(step, points[step][0]) for step in sorted(points)]
            for name, points in self.points.items()
            if points
        }
        return JournalView(
            series=series, events=tuple(self._events), params=dict(self.params),
            last_step=max((points[-1][0] for points in series.values()), default=0),
            seconds=self._seconds + open_for, damaged=tuple(self._damaged),
        )  # fmt: skip


def parse(raw: bytes, first: int = 1) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """(line number, record) of whole lines; None for a line that is no json object."""
    for number, line in enumerate(raw.split(b"\n")[:-1], first):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        yield number, record if isinstance(record, dict) else None


def values_of(record: Mapping[str, Any]) -> dict[str, float]:
    """A metrics line's values by their full names: ``validation/loss`` for ``loss`` of stage validation.

    Raises:
        ValueError: a value is no number, or the step is no whole number.
    """
    stage = str(record.get("stage", "train"))
    if type(record["step"]) is not int:
        raise ValueError("a step is a whole number")
    prefix = "" if stage == "train" else f"{stage}/"
    return {
        name if name.startswith(prefix) else prefix + name: decode(value)
        for name, value in record["values"].items()
    }
