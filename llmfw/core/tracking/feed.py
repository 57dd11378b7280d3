"""What of a journal MLflow hasn't been told yet: each (name, step) once, whatever is killed and resumed.

The cursor file beside the journal remembers what was acknowledged. MLflow can't take a value back, so the
first one that was acknowledged for a (name, step) stays there; where a resumed run computed another one, the
journal has the one that counts and ``superseded`` says how many differ.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmfw.core.tracking.files import read_json, write_json
from llmfw.core.tracking.reader import parse, values_of

CURSOR = "mlflow.cursor.json"
_UNFIT = re.compile(r"[^\w.\- :/]", re.ASCII)


@dataclass
class Cursor:
    """What MLflow has acknowledged.

    ``offset``: bytes of the journal that are dealt with. ``sending``: a batch was under way, so what arrived
    isn't known.
    """

    run_id: str = ""
    offset: int = 0
    sending: bool = False
    params: list[str] = field(default_factory=list)
    artifacts: dict[str, str] = field(default_factory=dict)
    status: str = ""

    @classmethod
    def read(cls, folder: Path) -> Cursor:
        """The cursor in a run's folder, a fresh one where there is none."""
        raw = read_json(folder / CURSOR) or {}
        fresh = cls()
        known = {key: raw[key] for key, value in vars(fresh).items() if type(raw.get(key)) is type(value)}
        return cls(**known)

    def write(self, folder: Path) -> None:
        """Replace the cursor file."""
        write_json(folder / CURSOR, vars(self))


@dataclass(frozen=True)
class Point:
    """One value as MLflow takes it; ``wall`` in milliseconds."""

    key: str
    step: int
    value: float
    wall: int


class Feed:
    """The unsent part of a run's journal. Used by one thread."""

    def __init__(self, folder: Path) -> None:
        self._journal = folder / "journal.jsonl"
        self._offset = 0
        self._pending: dict[tuple[str, int], Point] = {}
        self._sent: dict[tuple[str, int], float] = {}
        self._params: dict[str, str] = {}
        self.rewound = False
        """Whether the journal has a rewind."""
        self.superseded = 0

    @property
    def offset(self) -> int:
        """Bytes of the journal that were read."""
        return self._offset

    @property
    def params(self) -> dict[str, str]:
        """Every param that the journal gives, as text, under a name that MLflow takes."""
        return dict(self._params)

    def __len__(self) -> int:
        return len(self._pending)

    def read(self, upto: int | None = None) -> None:
        """Take in the journal's whole lines, at most ``upto`` bytes of it."""
        try:
            with self._journal.open("rb") as file:
                file.seek(self._offset)
                raw = file.read() if upto is None else file.read(max(0, upto - self._offset))
        except FileNotFoundError:
            return
        whole = raw[: raw.rfind(b"\n") + 1]
        self._offset += len(whole)
        for _, record in parse(whole):
            if record is not None:
                self._take(record)

    def batch(self, size: int) -> list[Point]:
        """The next values to send, oldest first."""
        return [point for point, _ in zip(self._pending.values(), range(size))]

    def acknowledge(self, batch: list[Point]) -> None:
        """Those values have arrived."""
        for point in batch:
            self._sent[point.key, point.step] = point.value
            if self._pending.get((point.key, point.step)) == point:
                del self._pending[point.key, point.step]

    def acknowledge_all(self) -> None:
        """Everything read so far has arrived."""
        self.acknowledge(list(self._pending.values()))

    def adopt(self, known: dict[tuple[str, int], float]) -> None:
        """MLflow has these values already."""
        for key, value in known.items():
            self._sent[key] = value
            waiting = self._pending.pop(key, None)
            if waiting is not None:
                self._compare(waiting)

    def _take(self, record: dict[str, Any]) -> None:
        kind = record.get("t")
        try:
            if kind == "metrics":
                wall = int(float(record.get("wall", 0.0)) * 1000)
                for name, value in values_of(record).items():
                    self._add(Point(fit_name(name), int(record["step"]), value, wall))
            elif kind == "rewind":
                self.rewound = True
                late = [key for key in self._pending if key[1] > int(record["step"])]
                for key in late:
                    del self._pending[key]
            elif kind == "params":
                self._params.update(
                    {fit_name(str(name)): str(value) for name, value in record.get("values", {}).items()}
                )
        except (KeyError, TypeError, ValueError, AttributeError):
            return  # a line that the disk spoilt; read_journal counts it

    def _add(self, point: Point) -> None:
        if (point.key, point.step) in self._sent:
            self._compare(point)
        else:
            self._pending[point.key, point.step] = point

    def _compare(self, point: Point) -> None:
        known = self._sent[point.key, point.step]
        # MLflow's SQL store holds an infinity as the largest number
        if (
            known != point.value
            and not (known != known and point.value != point.value)
            and abs(point.value) != float("inf")
        ):
            self.superseded += 1


def fit_name(name: str) -> str:
    """The name as MLflow takes it: a plain path of at most 250 characters."""
    plain = _UNFIT.sub("_", name)[:250] or "_"
    is_path = posixpath.normpath(plain) == plain and not plain.startswith(("/", ".."))
    return plain if is_path and plain != "." else plain.replace("/", "_").replace(".", "_")
