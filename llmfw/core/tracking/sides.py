"""One run as a comparison sees it: everything is read from its folder, nothing is computed anew."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmfw.core.tracking.evaluations import STAGE, Entry, read_entries
from llmfw.core.tracking.files import read_json
from llmfw.core.tracking.reader import UNREPEATABLE, JournalView, read_journal
from llmfw.core.tracking.record import RunRecord

LARGEST_TABLE = 5_000_000
"""Bytes; a larger file under tables/ is named, not shown."""

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Side:
    """One run of a comparison."""

    label: str
    """A, B, C ... from the oldest to the newest."""
    record: RunRecord
    view: JournalView
    plugins: Mapping[str, str]
    """name -> distribution and version."""
    facts: Mapping[str, Any]
    """environment.json."""
    loss: str
    """The plugin that owns the loss, "" where none is known."""
    tables: Mapping[str, Rows]
    evaluations: Sequence[Entry] = ()
    """What was measured afterwards, oldest first."""

    @property
    def data(self) -> str:
        """Fingerprint of the prepared data."""
        return self._last("data", "fingerprint")

    @property
    def stopped_by(self) -> str:
        """Why training ended before its last step; "" where it didn't."""
        return self._last("trained", "stopped_by")

    @property
    def hardware(self) -> Mapping[str, Any]:
        """What environment.json says of the machine."""
        return _mapping(self.facts.get("hardware"))

    @property
    def packages(self) -> Mapping[str, Any]:
        """Installed distributions and their versions."""
        return _mapping(self.facts.get("packages"))

    @property
    def git(self) -> Mapping[str, Any]:
        """The working tree; empty outside git."""
        return _mapping(self.facts.get("git"))

    def _last(self, kind: str, key: str) -> str:
        found = self.view.of(kind)
        return str(found[-1].fields.get(key) or "") if found else ""


def read_side(record: RunRecord, label: str) -> Side:
    """A run with its journal, plan, environment and tables; what is missing or damaged is left out.

    Raises:
        DataError: there is no journal.
    """
    plan = read_json(record.dir / "plan.json") or {}
    named = {
        str(item["name"]): str(item.get("distribution", ""))
        for item in _list(plan.get("plugins"))
        if isinstance(item, dict) and "name" in item
    }
    owners = _list(_mapping(plan.get("answers")).get("llmfw_loss"))
    return Side(
        label=label,
        record=record,
        view=read_journal(record.journal),
        plugins=named or dict.fromkeys(record.plugins, ""),
        facts=read_json(record.dir / "environment.json") or {},
        loss=str(_mapping(owners[0]).get("plugin", "")) if owners else "",
        tables=_tables(record.dir / "tables"),
        evaluations=read_entries(record.dir),
    )


def same_numbers(side: Side, other: Side) -> bool:
    """Whether two runs computed the same, bit for bit, in every series that both have."""
    trained = side.record.verb != STAGE and other.record.verb != STAGE
    # what was measured after a training may have been measured under other conditions
    left_out = (*UNREPEATABLE, STAGE) if trained else UNREPEATABLE
    shared = [
        name for name in side.view.series.keys() & other.view.series.keys() if not name.startswith(left_out)
    ]
    return bool(shared) and all(
        [(step, value.hex()) for step, value in side.view.series[name]]
        == [(step, value.hex()) for step, value in other.view.series[name]]
        for name in shared
    )


def _tables(folder: Path) -> dict[str, Rows]:
    found: dict[str, Rows] = {}
    for path in sorted(folder.glob("*.json")):
        if path.stat().st_size > LARGEST_TABLE:
            found[path.stem] = [{"note": f"too large to show ({path.stat().st_size} bytes)"}]
            continue
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            rows = [{"note": "this file is damaged"}]
        if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
            found[path.stem] = rows
    return found


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
