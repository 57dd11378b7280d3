"""What a run's files say of it, gathered for a reader: settings, plugins, data, steps and results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmfw.core.errors import LlmfwError
from llmfw.core.tracking.files import read_json
from llmfw.core.tracking.reader import JournalView, read_journal
from llmfw.core.tracking.record import read_record
from llmfw.core.tracking.redaction import redact

_BOUNDS = ("/low", "/high", "/n")


@dataclass(frozen=True, kw_only=True)
class Result:
    """One measured value, with its 95% interval and number of items where they're known."""

    name: str
    value: float
    before: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None


@dataclass(frozen=True, kw_only=True)
class Paper:
    """A plugin that took part, and the paper behind it."""

    plugin: str
    distribution: str
    summary: str
    title: str = ""
    arxiv: str = ""


@dataclass(frozen=True, kw_only=True)
class History:
    """A run up to one of its steps."""

    name: str
    id: str
    status: str
    created: str
    step: int
    """Optimizer steps behind the weights that this is about."""
    steps: int | None = None
    """Steps of the whole training, where it came to its end."""
    stopped_by: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """By dotted key, secrets taken out."""
    plan: str = ""
    """The plan's hash."""
    fingerprint: str = ""
    papers: Sequence[Paper] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    hardware: Mapping[str, Any] = field(default_factory=dict)
    commit: str = ""
    """Of the folder in which the run was started, where that was a git checkout."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """The data report."""
    training: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Training metrics: (first, last)."""
    held_out: Sequence[Result] = ()
    evaluations: Sequence[Result] = ()

    @property
    def seed(self) -> Any:
        """The run's seed."""
        return self.settings.get("seed")


def read_history(run: Path, step: int | None = None) -> History:
    """The history of a run's folder up to ``step`` (None: to its end); what is missing stays empty.

    Raises:
        UsageError: no folder of a run.
    """
    record = read_record(run)
    plan = redact(read_json(run / "plan.json") or {})
    cards = read_json(run / "cards.json") or {}
    around = read_json(run / "environment.json") or {}
    try:
        view: JournalView | None = read_journal(run / "journal.jsonl")
    except LlmfwError:
        view = None
    trained = view.of("trained") if view else []
    told = trained[-1].fields if trained else {}
    reports = view.of("data") if view else []
    reached = step if step is not None else int(told.get("steps") or (view.last_step if view else 0))
    facts = plan.get("facts") or {}
    return History(
        name=record.name,
        id=record.id,
        status=record.status,
        created=record.created,
        step=reached,
        steps=told.get("steps"),
        stopped_by=told.get("stopped_by"),
        settings=plan.get("settings") or {},
        plan=str(plan.get("hash") or ""),
        fingerprint=str(plan.get("fingerprint") or record.fingerprint),
        papers=tuple(
            _paper(entry, cards.get(entry.get("name")) or {}) for entry in plan.get("plugins") or ()
        ),
        versions=facts.get("versions") or {},
        hardware=around.get("hardware") or {},
        commit=str((around.get("git") or {}).get("commit") or ""),
        data=redact(reports[-1].fields.get("report") or {}) if reports else {},
        training=_ends(view, reached),
        held_out=_results(view, "validation/", reached),
        evaluations=_results(view, "end/", reached, before="start/"),
    )


def _paper(entry: Mapping[str, Any], card: Mapping[str, Any]) -> Paper:
    paper = card.get("paper") or {}
    return Paper(
        plugin=str(entry.get("name")),
        distribution=str(entry.get("distribution") or card.get("distribution") or ""),
        summary=str(card.get("summary") or ""),
        title=str(paper.get("title") or ""),
        arxiv=str(paper.get("arxiv") or ""),
    )


def _ends(view: JournalView | None, reached: int) -> dict[str, tuple[float, float]]:
    """First and last values of the training series up to a step."""
    found = {}
    for name, points in (view.series if view else {}).items():
        own = [value for at, value in points if at <= reached]
        if "/" not in name and own:
            found[name] = (own[0], own[-1])
    return found


def _results(view: JournalView | None, prefix: str, reached: int, before: str = "") -> list[Result]:
    """The last values of a stage up to a step, bounds with their metric."""
    if view is None:
        return []
    last = {}
    for name, points in view.series.items():
        own = [value for at, value in points if at <= reached]
        if own:
            last[name] = own[-1]
    values = {name.removeprefix(prefix): value for name, value in last.items() if name.startswith(prefix)}
    found = []
    for name, value in values.items():
        if name.endswith(_BOUNDS):
            continue
        n = values.get(f"{name}/n", values.get(f"{name.rpartition('/')[0]}/n"))
        found.append(
            Result(
                name=name,
                value=value,
                before=last.get(before + name) if before else None,
                low=values.get(f"{name}/low"),
                high=values.get(f"{name}/high"),
                n=None if n is None or n != n else int(n),
            )
        )
    return found
