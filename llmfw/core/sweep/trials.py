"""The runs of a sweep: what each tried and brought, kept in sweep.json."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llmfw.core.sweep.search import Mode, Search
from llmfw.core.tracking.files import write_json

FILE = "sweep.json"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run of a sweep. ``value`` is the metric's, None where the run didn't reach it."""

    number: int
    settings: Mapping[str, str]
    status: Literal["FINISHED", "FAILED"]
    dir: Path
    value: float | None = None
    low: float | None = None
    high: float | None = None
    seconds: float = 0.0
    error: str | None = None


def best_of(trials: Sequence[Trial], mode: Mode) -> Trial | None:
    """The best of the trials with a finite value; of equals the first."""
    ended = [trial for trial in trials if trial.value is not None and math.isfinite(trial.value)]
    sign = 1 if mode == "min" else -1
    return min(ended, key=lambda trial: sign * (trial.value or 0.0), default=None)


def plain(trial: Trial) -> dict[str, Any]:
    """A trial as json holds it."""
    return {**vars(trial), "settings": dict(trial.settings), "dir": str(trial.dir.name)}


def remember(folder: Path, search: Search, trials: Sequence[Trial]) -> None:
    """Write sweep.json, by rename."""
    write_json(
        folder / FILE,
        {
            "metric": search.metric,
            "mode": search.mode,
            "sampler": search.sampler,
            "swept": {one.key: one.said for one in search.swept},
            "trials": [plain(trial) for trial in trials],
        },
    )


def remembered(folder: Path) -> list[Trial]:
    """The trials that have ended."""
    file = folder / FILE
    if not file.exists():
        return []
    told = json.loads(file.read_text(encoding="utf-8"))["trials"]
    return [Trial(**{**trial, "dir": folder / "trials" / trial["dir"]}) for trial in told]
