"""Runs as a training would have left them, written through the real journal and folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmfw.core.tracking import RunRecord, open_run

DATA = {"model.name": "tiny", "data.name": "pairs.jsonl", "seed": 1, "ld_dpo.alpha": 0.5}


def make_run(
    runs: Path,
    name: str,
    *,
    config: Mapping[str, Any] = DATA,
    series: Mapping[str, Sequence[tuple[int, float]]] | None = None,
    status: str = "FINISHED",
    fingerprint: str | None = None,
    data: str = "same data",
    plugins: Mapping[str, str] | None = None,
    tables: Mapping[str, list[dict[str, Any]]] | None = None,
) -> RunRecord:
    """A run with these settings and values; ``plugins`` maps a name to its distribution, the first owns the
    loss.
    """
    named = {"ld_dpo": "llmfw 0.1.0"} if plugins is None else plugins
    plan = {
        "plugins": [{"name": plugin, "distribution": origin} for plugin, origin in named.items()],
        "answers": {"llmfw_loss": [{"plugin": next(iter(named), "llmfw")}]},
    }
    run = open_run(
        name=name,
        runs=runs,
        plugins=list(named),
        fingerprint=name if fingerprint is None else fingerprint,
        config=config,
        plan=plan,
        config_yaml="x: 1\n",
    )
    run.journal.event("data", fingerprint=data)
    for key, points in (series or {"loss": [(1, 0.7), (2, 0.5)]}).items():
        for step, value in points:
            run.journal.metrics(step, {key: value})
    for table, rows in (tables or {}).items():
        (run.dir / "tables").mkdir(exist_ok=True)
        (run.dir / "tables" / f"{table}.json").write_text(json.dumps(rows))
    run.close(status)  # type: ignore[arg-type]
    return run.record
