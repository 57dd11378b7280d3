"""Whether MLflow knows a run once, whole, and as finished."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmfw.core.proof.facts import Finding
from llmfw.core.tracking import read_journal
from llmfw.core.tracking.feed import fit_name
from llmfw.core.tracking.reader import UNREPEATABLE
from llmfw.core.tracking.record import RunRecord
from llmfw.core.tracking.remote import RUN_TAG, prepare


def one_mlflow_run(store: Path, record: RunRecord) -> Finding:
    """One run in the store, FINISHED, each step of each metric there once; with the journal's value, but for
    times and the like, which a step that is done twice has twice.
    """
    prepare()
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{store.absolute()}")
    experiments = [str(one.experiment_id) for one in client.search_experiments()]
    runs = client.search_runs(experiments, filter_string=f"tags.`{RUN_TAG}` = '{record.id}'")
    problems = []
    if len(runs) != 1:
        problems.append(f"{len(runs)} runs")
    status = runs[0].info.status if runs else "none"
    if status != "FINISHED":
        problems.append(f"status {status}")
    wanted = read_journal(record.journal).series
    known = _histories(client, runs[0]) if runs else {}
    values = sum(map(len, known.values()))
    twice = [name for name, points in known.items() if len({step for step, _ in points}) < len(points)]
    if twice:
        problems.append(f"{twice[0]} has a step twice")
    missing = [
        name for name, points in wanted.items()
        if {step for step, _ in points} != {step for step, _ in known.get(fit_name(name), ())}
    ]  # fmt: skip
    if missing:
        problems.append(f"{missing[0]} isn't there whole")
    other = [
        f"{name} at step {step}"
        for name, points in wanted.items()
        if not name.startswith(UNREPEATABLE)
        for step, value in points
        if not _same(dict(known.get(fit_name(name), ())).get(step), value)
    ]
    if other and not missing:
        problems.append(f"{other[0]} has another value ({len(other)} of them)")
    said = "; ".join(problems) or f"one run, FINISHED, {values} values, none twice"
    return Finding(what="MLflow", equal=not problems, held=not problems, said=said)


def _same(stored: float | None, value: float) -> bool:
    """Whether MLflow has the value; its SQL store holds an infinity as the largest number."""
    if stored is None or math.isinf(value):
        return stored is not None
    return stored == value or (math.isnan(stored) and math.isnan(value))


def _histories(client: Any, run: Any) -> dict[str, Sequence[tuple[int, float]]]:
    return {
        name: [
            (int(point.step), float(point.value))
            for point in client.get_metric_history(run.info.run_id, name)
        ]
        for name in run.data.metrics
    }
