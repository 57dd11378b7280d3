"""Whether MLflow knows a run once, whole, and as finished."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmfw.core.proof.facts import Finding
from llmfw.core.tracking import read_journal
from llmfw.core.tracking.feed import fit_name
from llmfw.core.tracking.record import RunRecord
from llmfw.core.tracking.remote import RUN_TAG, prepare


def one_mlflow_run(store: Path, record: RunRecord) -> Finding:
    """One run in the store, FINISHED, each step of each metric there once, with the journal's value."""
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
    said = "; ".join(problems) or f"one run, FINISHED, {values} values, none twice"
    return Finding(what="MLflow", equal=not problems, held=not problems, said=said)


def _histories(client: Any, run: Any) -> dict[str, Sequence[tuple[int, float]]]:
    return {
        name: [
            (int(point.step), float(point.value))
            for point in client.get_metric_history(run.info.run_id, name)
        ]
        for name in run.data.metrics
    }
