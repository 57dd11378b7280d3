"""What was measured after a run, as ``evaluations/TIME.json`` files in its folder say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmfw.core.tracking.files import read_json
from llmfw.core.tracking.journal import decode

FOLDER = "evaluations"
STAGE = "evaluate"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One ``llmfw evaluate``. ``key``: equal where the same was measured under the same conditions."""

    file: str
    time: str
    weights: str
    """``final``, a checkpoint's name, or the name of a model."""
    step: int
    data: str
    conditions: Mapping[str, Any]
    changed: Mapping[str, Any]
    """Settings that weren't the run's own."""
    key: str
    metrics: Mapping[str, float]


def key_of(conditions: Mapping[str, Any], changed: Mapping[str, Any]) -> str:
    """16 hex digits that are the same for the same conditions."""
    text = json.dumps([dict(conditions), dict(changed)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_entries(run: Path) -> list[Entry]:
    """A run's entries, oldest first; a damaged one is left out."""
    found: list[Entry] = []
    for path in sorted((run / FOLDER).glob("*.json")):
        raw = read_json(path)
        if raw is None:
            continue
        try:
            found.append(
                Entry(
                    file=path.name,
                    time=str(raw["time"]),
                    weights=str(raw["weights"]),
                    step=int(raw["step"]),
                    data=str(raw.get("data") or ""),
                    conditions=dict(raw["conditions"]),
                    changed=dict(raw["changed"]),
                    key=str(raw["key"]),
                    metrics={str(name): decode(value) for name, value in raw["metrics"].items()},
                )
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
    return sorted(found, key=lambda entry: entry.time)


def newest(entries: Sequence[Entry]) -> dict[tuple[str, str], Entry]:
    """(key, weights) -> the newest entry of equal ones."""
    return {(entry.key, entry.weights): entry for entry in entries}
