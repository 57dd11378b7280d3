"""Several runs side by side: what was set otherwise, and what came out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from llmfw.core.costs.record import PREFIXES
from llmfw.core.errors import UsageError
from llmfw.core.tracking.afterwards import PREFIX, Row, afterwards
from llmfw.core.tracking.cautions import cautions
from llmfw.core.tracking.evaluations import STAGE
from llmfw.core.tracking.journal import encode
from llmfw.core.tracking.reader import JournalView
from llmfw.core.tracking.record import RunRecord
from llmfw.core.tracking.sides import Side, read_side, same_numbers

Direction = Literal["min", "max"]

MOST_RUNS = 20

_OF_TRAINING = ("trainer.", "optimizer.", "adapter.", "checkpoint.", "evaluation.")
"""Settings that say nothing of an evaluation: what it measured says by itself under which conditions."""
_INCIDENTAL = ("run.", "tracking.", "trainer.progress")
"""Settings that say where and how loudly, not what."""
_LOWER = frozenset(
    "loss perplexity ppl nll error errors error_rate wer cer bpb bits_per_byte ece brier".split()
)
_HIGHER = frozenset(
    "accuracy accuracies acc acc_norm margin margins f1 em exact_match chrf win_rate auc mrr ndcg precision "
    "recall".split()
)
_OF_COSTS: dict[str, Direction] = dict.fromkeys(
    ("ms", "gib", "seconds", "train_seconds", "host_gib", "gpu_gib"), "min"
)
_COMMON = ("llmfw", "torch", "transformers", "lightning", "peft", "tokenizers")


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A setting or a version that isn't the same in all runs; None: the run has no such thing."""

    key: str
    values: tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A series over all runs; entries are None where a run lacks it.

    ``first`` is the value before training (``start/NAME`` of ``end/NAME``), else the first of several.
    ``best`` is (value, step), known where the name tells a ``direction``; ``low``, ``high`` and ``count``
    come with estimates.
    """

    name: str
    direction: Direction | None
    final: tuple[float | None, ...]
    first: tuple[float | None, ...]
    best: tuple[tuple[float, int] | None, ...]
    delta: tuple[float | None, ...]
    """Final minus the baseline's final."""
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    count: tuple[float | None, ...]

    def to_dict(self) -> dict[str, Any]:
        """As json holds it."""
        lists = {
            name: [None if value is None else encode(value) for value in getattr(self, name)]
            for name in ("first", "final", "delta", "low", "high", "count")
        }
        best = [None if best is None else {"value": encode(best[0]), "step": best[1]} for best in self.best]
        return {"name": self.name, "direction": self.direction, **lists, "best": best}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything that the terminal and the report show."""

    sides: tuple[Side, ...]
    baseline: int
    """Index of the run that differences refer to."""
    settings: tuple[Difference, ...]
    versions: tuple[Difference, ...]
    metrics: tuple[Metric, ...]
    afterwards: tuple[str, ...]
    """When, of what and under what the metrics that begin with evaluate/ were measured."""
    twins: tuple[str | None, ...]
    """Label of an older run whose numbers are the same, bit for bit, in every series that both have."""
    cautions: tuple[str, ...]
    """What speaks against comparing these runs."""

    def to_dict(self) -> dict[str, Any]:
        """As json holds it: numbers that aren't finite as words."""
        runs = [
            {
                "label": side.label,
                "id": side.record.id,
                "name": side.record.name,
                "folder": str(side.record.dir),
                "status": side.record.status,
                "verb": side.record.verb,
                "evaluations": [
                    {
                        "file": entry.file,
                        "time": entry.time,
                        "weights": entry.weights,
                        "step": entry.step,
                        "conditions": dict(entry.conditions),
                        "changed": dict(entry.changed),
                    }
                    for entry in side.evaluations
                ],
                "plugins": dict(side.plugins),
                "steps": side.view.last_step,
                "seconds": side.view.seconds,
                "stopped_by": side.stopped_by or None,
                "resume_class": side.record.resume_class or None,
                "resume_reasons": list(side.record.resume_reasons),
                "same_numbers_as": twin,
                "mlflow": dict(side.record.mlflow),
            }
            for side, twin in zip(self.sides, self.twins)
        ]
        return {
            "runs": runs,
            "baseline": self.sides[self.baseline].label,
            "settings": [{"key": item.key, "values": list(item.values)} for item in self.settings],
            "versions": [{"key": item.key, "values": list(item.values)} for item in self.versions],
            "metrics": [metric.to_dict() for metric in self.metrics],
            "afterwards": list(self.afterwards),
            "cautions": list(self.cautions),
        }


def compare(records: Sequence[RunRecord], baseline: RunRecord | None = None) -> Comparison:
    """Put runs side by side, oldest first; differences refer to ``baseline``, or to the oldest.

    Raises:
        UsageError: no run, or too many.
        DataError: a run has no journal.
    """
    unique = {record.id: record for record in records}
    if baseline is not None:
        unique.setdefault(baseline.id, baseline)
    ordered = sorted(unique.values(), key=lambda record: (record.created, record.dir.name))
    if not ordered:
        raise UsageError("NO-RUN", "there is no run to compare", mend="train one: llmfw fit")
    if len(ordered) > MOST_RUNS:
        raise UsageError(
            "MANY-RUNS", f"{len(ordered)} runs don't fit side by side", mend=f"name at most {MOST_RUNS}"
        )
    sides = tuple(read_side(record, chr(ord("A") + index)) for index, record in enumerate(ordered))
    base = next((index for index, record in enumerate(ordered) if baseline and record.id == baseline.id), 0)
    settings = _settings(sides)
    measured = afterwards(sides)
    return Comparison(
        sides=sides,
        baseline=base,
        settings=settings,
        versions=_versions(sides),
        metrics=_metrics(sides, base, measured.rows),
        afterwards=tuple(measured.notes),
        twins=tuple(
            next((old.label for old in sides[:index] if same_numbers(side, old)), None)
            for index, side in enumerate(sides)
        ),
        cautions=tuple(cautions(sides, {item.key for item in settings})),
    )


def direction(name: str) -> Direction | None:
    """Which way a metric is better, as far as its name tells: losses fall, accuracies and margins rise."""
    if name.startswith(PREFIXES):
        return _OF_COSTS.get(name.rpartition("/")[2])
    for part in reversed(name.lower().replace("-", "_").split("/")):
        words = part.split("_")
        if part in ("n", "low", "high") or "correlation" in words:
            return None
        if part in _LOWER or words[-1] in ("loss", "perplexity"):
            return "min"
        if part in _HIGHER or words[-1] == "accuracy" or part.startswith(("pass@", "bleu", "rouge")):
            return "max"
    return None


def _differing(
    keys: Iterable[str], value: Callable[[str, Side], Any], sides: Sequence[Side]
) -> tuple[Difference, ...]:
    found = (Difference(key=key, values=tuple(value(key, side) for side in sides)) for key in keys)
    return tuple(item for item in found if any(other != item.values[0] for other in item.values[1:]))


def _settings(sides: Sequence[Side]) -> tuple[Difference, ...]:
    keys = sorted({key for side in sides for key in side.view.params if not key.startswith(_INCIDENTAL)})
    if any(side.record.verb == STAGE for side in sides):  # how to train and what to measure: not its subject
        keys = [key for key in keys if not key.startswith(_OF_TRAINING) or not _evaluates_alone(key, sides)]
    return _differing(keys, lambda key, side: side.view.params.get(key), sides)


def _evaluates_alone(key: str, sides: Sequence[Side]) -> bool:
    """Whether a setting is the same in all runs but the evaluations."""
    return len({str(side.view.params.get(key)) for side in sides if side.record.verb != STAGE}) < 2


def _versions(sides: Sequence[Side]) -> tuple[Difference, ...]:
    plugins = sorted({name for side in sides for name in side.plugins})
    packages = sorted({name for side in sides for name in side.packages}, key=str.lower)
    # what a run's numbers hang on comes first
    packages.sort(key=lambda name: name.lower() not in _COMMON)
    return (
        *_differing(plugins, lambda key, side: side.plugins.get(key), sides),
        *_differing(("python", "platform"), lambda key, side: side.facts.get(key), sides),
        *_differing(("cpu", "threads", "gpus"), lambda key, side: _plain(side.hardware.get(key)), sides),
        *_differing(("commit", "uncommitted changes"), _git, sides),
        *_differing(packages, lambda key, side: side.packages.get(key), sides),
    )


def _git(key: str, side: Side) -> str | None:
    if not side.git:
        return None
    return (
        str(side.git.get("commit", ""))[:12]
        if key == "commit"
        else ("yes" if side.git.get("dirty") else "no")
    )


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return ", ".join(
            str(item.get("name", item)) if isinstance(item, dict) else str(item) for item in value
        )
    return value


def _metrics(sides: Sequence[Side], base: int, measured: Sequence[Row]) -> tuple[Metric, ...]:
    # what was measured afterwards comes from the entries, which know the conditions
    names = {name for side in sides for name in side.view.series if not name.startswith(STAGE)}
    estimates = {name for name in names if {f"{name}/low", f"{name}/high"} <= names}
    hidden = {f"{name}/{part}" for name in estimates for part in ("low", "high")}
    hidden |= {f"{name}/n" for name in names}
    # the value before training stands in the row of the value after it
    hidden |= {f"start/{name[4:]}" for name in names if name.startswith("end/")}
    trained = [_metric(name, sides, base) for name in names - hidden]
    found = [*trained, *_measured(measured, len(sides), base)]
    return tuple(sorted(found, key=lambda metric: _rank(metric.name)))


def _measured(rows: Sequence[Row], count: int, base: int) -> Iterator[Metric]:
    """The rows of what was measured afterwards, with the bounds and sizes of estimates beside them."""
    known = {row.name: row for row in rows}
    for row in rows:
        head, _, part = row.name.rpartition("/")
        if part in ("low", "high", "n") and head in known:
            continue
        final = tuple(row.values.get(index) for index in range(count))
        more = {
            part: known[f"{row.name}/{part}"].values if f"{row.name}/{part}" in known else {}
            for part in ("low", "high", "n")
        }
        low, high, size = (
            tuple(more[part].get(index) for index in range(count)) for part in ("low", "high", "n")
        )
        yield Metric(
            name=row.name,
            direction=direction(row.metric),
            final=final,
            first=(None,) * count,
            best=(None,) * count,
            delta=_deltas(final, base),
            low=low,
            high=high,
            count=size,
        )


def _deltas(final: Sequence[float | None], base: int) -> tuple[float | None, ...]:
    reference = final[base]
    return tuple(
        None if value is None or reference is None or index == base else value - reference
        for index, value in enumerate(final)
    )


def _rank(name: str) -> tuple[int, str]:
    """Results first, then held-out values, then training, then costs."""
    if name.startswith(("end/", "round/", PREFIX)):
        return 0, name
    if name.startswith(PREFIXES):
        return 3, name
    return (1, name) if name.startswith("validation/") else (2, name)


def _metric(name: str, sides: Sequence[Side], base: int) -> Metric:
    better, costs = direction(name), name.startswith(PREFIXES)  # each is a mean or a sum so far
    final = tuple(side.view.final(name) for side in sides)
    return Metric(
        name=name,
        direction=better,
        final=final,
        first=tuple(None if costs else _first(name, side.view) for side in sides),
        best=tuple(None if costs else _best(side.view.series.get(name, []), better) for side in sides),
        delta=_deltas(final, base),
        low=tuple(side.view.final(f"{name}/low") for side in sides),
        high=tuple(side.view.final(f"{name}/high") for side in sides),
        count=tuple(side.view.final(f"{name}/n") for side in sides),
    )


def _first(name: str, view: JournalView) -> float | None:
    if name.startswith("end/"):
        return view.final(f"start/{name.removeprefix('end/')}")
    points = view.series.get(name, [])
    return points[0][1] if len(points) > 1 else None


def _best(points: Sequence[tuple[int, float]], better: Direction | None) -> tuple[float, int] | None:
    finite = [(value, step) for step, value in points if math.isfinite(value)]
    if better is None or not finite:
        return None
    return min(finite, key=lambda point: (point[0] if better == "min" else -point[0], point[1]))
