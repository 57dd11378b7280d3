"""Which runs a comparison is about."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from llmfw.core.errors import LlmfwError, UsageError
from llmfw.core.tracking.comparison import MOST_RUNS
from llmfw.core.tracking.files import read_json
from llmfw.core.tracking.reader import JournalView, read_journal
from llmfw.core.tracking.record import RUNS, RunRecord, find_run, list_runs, read_record, reap

DEFAULT = 5
_PARENTS = ("sweep", "ablate", "reproduce")
"""Verbs whose runs have no values to compare but children that have."""


def pick_runs(
    names: Sequence[str] = (),
    *,
    experiment: str | None = None,
    last: int | None = None,
    runs: Path = RUNS,
) -> tuple[list[RunRecord], str]:
    """(records, what was left out and why, "" where nothing was).

    Named runs may be folders, names, ids or MLflow ids; a run of runs (a sweep, an ablation, claims that were
    run again) stands for its runs, a sweep's the best first. Else: the newest ``last`` runs with values, of
    one experiment if given. Without any wish: the newest five that ended, began with the same model and saw
    the same data as the newest of all.

    Raises:
        UsageError: a name means no run or several, or there is nothing to compare.
    """
    if names:
        meant = [_with_children(named_run(name, runs)) for name in names]
        found = [record for records, _ in meant for record in records]
        if experiment is not None or last is not None:
            raise UsageError(
                "USAGE",
                "runs are named one by one, or chosen by --experiment and --last",
                mend="leave one of the two out",
            )
        return found, "; ".join(told for _, told in meant if told)
    listed = [record for record in list_runs(runs) if record.verb not in _PARENTS]
    known = [(record, view) for record in listed if (view := _journal(record)) is not None]
    if experiment is not None:
        known = [(record, view) for record, view in known if _experiment(record, view) == experiment]
    if not known:
        where = f"experiment {experiment!r} under {runs}" if experiment else str(runs)
        raise UsageError(
            "NO-RUN",
            f"there is no run with values in {where}",
            mend="train one (llmfw fit), or name run folders",
        )
    if last is not None or experiment is not None:
        return [record for record, _ in known[: last or DEFAULT]], _left(known, last or DEFAULT)
    ended = [(record, view) for record, view in known if record.status != "RUNNING"] or known
    subject = _subject(ended[0][1])
    alike = [(record, view) for record, view in ended if _subject(view) == subject]
    chosen = [record for record, _ in alike[:DEFAULT]]
    return chosen, _left(known, len(chosen))


def named_run(name: str, runs: Path = RUNS) -> RunRecord:
    """The run that a user means; an id that only MLflow knows is looked up there.

    Raises:
        UsageError: no run or several runs are meant.
    """
    try:
        return find_run(name, runs)
    except UsageError as unknown:
        if unknown.code != "RUN-UNKNOWN" or not re.fullmatch(r"[0-9a-f]{32}", name):
            raise
        from llmfw.core.tracking.replay import run_folder

        with suppress(UsageError):
            return reap(read_record(run_folder(name, runs=runs)))
        raise


def natural_baseline(names: Sequence[str], runs: Path = RUNS) -> RunRecord | None:
    """The run that differences refer to where a single ablation is named: the one without the plugin, of
    several plugins the one with all of them; of several seeds the first's. None: there's no such run.
    """
    if len(names) != 1 or (record := named_run(names[0], runs)).verb != "ablate":
        return None
    arms = list((read_json(record.dir / "ablation.json") or {}).get("arms", ()))
    told = arms[-1] if len(arms) == 2 else arms[0] if arms else {}
    folders = [record.dir / place for place in dict(told.get("runs", {})).values()]
    return next((reap(read_record(folder)) for folder in folders if _has_values(folder)), None)


def _with_children(record: RunRecord) -> tuple[list[RunRecord], str]:
    """The runs of a run of runs and what of them is left out; another run itself."""
    if record.verb not in _PARENTS:
        return [record], ""
    if record.verb == "sweep":
        told = read_json(record.dir / "sweep.json") or {}
        trials = [trial for trial in told.get("trials", ()) if trial.get("value") is not None]
        trials.sort(key=lambda trial: trial["value"], reverse=told.get("mode") == "max")
        folders, worse = (
            [record.dir / "trials" / str(trial["dir"]) for trial in trials],
            ", with worse values,",
        )
    else:
        children = (read_json(record.dir / "series.json") or {}).get("children", ())
        folders, worse = [record.dir / str(child["place"]) for child in children], ""
        folders = [folder for folder in folders if _has_values(folder)]
    what = {"ablate": "ablation"}.get(record.verb, record.verb)
    if not folders:
        mend = "wait for one, or name others"
        raise UsageError("NO-RUN", f"no run of this {what} has ended yet", file=record.dir, mend=mend)
    left = len(folders) - MOST_RUNS
    told_left = f"{left} more runs of the {what}{worse} were left out" if left > 0 else ""
    return [reap(read_record(folder)) for folder in folders[:MOST_RUNS]], told_left


def _has_values(folder: Path) -> bool:
    """Whether a training was kept there: an arm of a claim may be a function, which leaves no journal."""
    return (folder / "run.json").is_file() and (folder / "journal.jsonl").is_file()


def _journal(record: RunRecord) -> JournalView | None:
    """The journal of a run that has values."""
    try:
        view = read_journal(record.journal)
    except LlmfwError:
        return None
    return view if view.series else None


def _subject(view: JournalView) -> tuple[str, ...]:
    keys = ("model.name", "model.revision", "data.name", "data.options", "data.limit", "data.validation")
    mixed = [f"{key}={value}" for key, value in view.params.items() if key.startswith("data.mix.")]
    return (*(str(view.params.get(key)) for key in keys), *sorted(mixed))


def _experiment(record: RunRecord, view: JournalView) -> str:
    return str(view.params.get("tracking.experiment") or record.mlflow.get("experiment") or "")


def _left(known: Sequence[object], shown: int) -> str:
    rest = len(known) - shown
    if rest <= 0:
        return ""
    what = "run was" if rest == 1 else "runs were"
    return f"{rest} more {what} left out (older, or another model or other data); --last N shows the newest N"
