"""Runs the plan's evaluations at their moments and writes down what they say."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from llmfw.core.errors import PluginError
from llmfw.core.guard import owner_named, place_of_function
from llmfw.core.manager import Answer
from llmfw.core.plan import Plan
from llmfw.core.records import Estimate, EvaluationResult, Policy, When
from llmfw.core.run import Run
from llmfw.core.tracking import Journal
from llmfw.core.tracking.files import write_json


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the evaluations of one moment found."""

    metrics: Mapping[str, float | Estimate] = field(default_factory=dict)
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    seconds: float = 0.0


def measure(plan: Plan, run: Run, policy: Policy, when: When | None) -> Measured:
    """Run the evaluations whose moment is ``when`` (None: all of them).

    Raises:
        PluginError: an evaluation failed, returned something else, or two gave one metric's name.
    """
    return merged(run_evaluations(plan, run, policy, None if when is None else (when,)))


def has_evaluations(plan: Plan, when: When) -> bool:
    """Whether anything is measured at this moment."""
    return any(when in answer.value.when for answer in plan.answers.get("llmfw_evaluations", ()))


def run_evaluations(
    plan: Plan, run: Run, policy: Policy, moments: Collection[When] | None
) -> list[tuple[Answer, EvaluationResult, float]]:
    """(evaluation, its result, seconds) of those with one of these moments (None: of all), each run once.

    Raises:
        PluginError: an evaluation failed or returned something else.
    """
    found: list[tuple[Answer, EvaluationResult, float]] = []
    for answer in plan.answers.get("llmfw_evaluations", ()):
        evaluation = answer.value
        if moments is not None and not set(moments) & set(evaluation.when):
            continue
        start = time.monotonic()
        result = evaluation.run(policy, run.service)
        if not isinstance(result, EvaluationResult):
            file, line = place_of_function(evaluation.run)
            raise PluginError(
                "PLUGIN-RECORD",
                f"evaluation {evaluation.name!r} of {owner_named(answer.plugin).title} gave "
                f"{type(result).__name__}",
                mend="return a llmfw.EvaluationResult",
                file=file,
                line=line,
            )
        found.append((answer, result, time.monotonic() - start))
    return found


def merged(results: Sequence[tuple[Answer, EvaluationResult, float]], when: When | None = None) -> Measured:
    """The results together; with ``when`` those of that moment alone.

    Raises:
        PluginError: two evaluations gave one metric's name.
    """
    metrics: dict[str, float | Estimate] = {}
    tables: dict[str, Sequence[Mapping[str, Any]]] = {}
    seconds = 0.0
    for answer, result, took in results:
        evaluation = answer.value
        if when is not None and when not in evaluation.when:
            continue
        for name in set(result.metrics) & set(metrics):
            raise PluginError(
                "TWO-METRICS",
                f"metric {name!r} is measured twice, again by plugin {answer.plugin!r}",
                mend="give it another name",
            )
        seconds += took
        metrics |= result.metrics
        tables |= {
            f"{evaluation.name}.{name}" if name in tables else name: rows
            for name, rows in result.tables.items()
        }
    return Measured(metrics=metrics, tables=tables, seconds=seconds)


def write_down(
    measured: Measured, journal: Journal, folder: Path, *, step: int, when: When | Literal["data"]
) -> None:
    """Put metrics into the journal (stage ``when``) and tables into ``folder/tables``."""
    if measured.metrics:
        journal.metrics(step, flatten(measured.metrics), stage=when)
        journal.event("evaluated", durable=True, when=when, step=step, seconds=measured.seconds)
    write_tables(measured, folder, when)


def write_tables(measured: Measured, folder: Path, when: str) -> None:
    """Each table as ``folder/tables/NAME-WHEN.json``; one of an earlier step of the same moment goes."""
    for name, rows in measured.tables.items():
        file = folder / "tables" / f"{name.replace('/', '-')}-{when}.json"
        file.parent.mkdir(exist_ok=True)
        write_json(file, [dict(row) for row in rows])


def flatten(metrics: Mapping[str, float | Estimate]) -> dict[str, float]:
    """Estimates as four values: NAME, NAME/low, NAME/high, NAME/n."""
    flat: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, Estimate):
            flat |= {
                name: value.value,
                f"{name}/low": value.low,
                f"{name}/high": value.high,
                f"{name}/n": value.n,
            }
        else:
            flat[name] = float(value)
    return flat
