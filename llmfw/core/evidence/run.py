"""The claims of one plugin, run: every arm for every seed as a run nested in one, then verdicts."""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llmfw.core.assemble import versions
from llmfw.core.claims import Size
from llmfw.core.config import load_config
from llmfw.core.errors import DataError, PluginError, UsageError
from llmfw.core.evidence.arms import Bench, failed_without_start, settings_of
from llmfw.core.evidence.document import entry_of, read_evidence
from llmfw.core.evidence.git import tree_of
from llmfw.core.evidence.marks import FILE
from llmfw.core.evidence.order import check_order, consumed
from llmfw.core.evidence.outcome import Outcome
from llmfw.core.evidence.schedule import Schedule, Task, counted
from llmfw.core.fit import result_of
from llmfw.core.say import say
from llmfw.core.schema import Root, TrackingConfig
from llmfw.core.series import open_series
from llmfw.core.session import Session
from llmfw.core.tracking import RunRecord, list_runs, read_record
from llmfw.core.tracking.files import write_json
from llmfw.core.tracking.journal import decode
from llmfw.core.tracking.surroundings import hardware

VERB = "reproduce"


@dataclass(frozen=True, kw_only=True)
class Reproduced:
    """What a run of claims brought. ``evidence`` is as evidence.json in its folder."""

    plugin: str
    dir: Path
    size: Size
    evidence: Mapping[str, Any]
    failures: Sequence[str] = ()
    """Arms that failed, one line each."""
    mlflow: Mapping[str, str] = field(default_factory=dict)

    @property
    def verdicts(self) -> dict[str, str]:
        """Claim's id -> verdict."""
        return {entry["id"]: entry["verdict"] for entry in self.evidence["claims"]}


def run_claims(
    schedule: Schedule,
    *,
    resume: bool = False,
    told: Callable[[Reproduced], None] = lambda found: None,
) -> Reproduced:
    """Run what is scheduled. evidence.json in the run's folder is written anew after every seed.

    An arm that fails is noted, the others go on; the run then ends FAILED, and ``resume`` tries those again.
    ``told`` is called with what was found before that.

    Raises:
        CheckpointError: ``resume``, and there is no unfinished run of the same claims, size and code.
        PluginError: arms saw different data, or some failed.
    """
    stated = schedule.stated
    root = _own_settings(schedule)
    _check_words(schedule)
    with open_series(
        verb=VERB,
        name=root.run.name or f"{VERB}-{stated.name}-{schedule.size}",
        fingerprint=fingerprint_of(schedule),
        tracking=tracking_of(schedule, root.tracking),
        folder=Path(root.run.dir) if root.run.dir else None,
        resume=resume,
        plugins=[stated.name],
        config={"plugin": stated.name, "size": schedule.size, "claims": [one.id for one in schedule.claims]},
    ) as session:
        say(f"{VERB} {session.dir}   {stated.name}: {len(schedule.tasks)} runs, size {schedule.size}")
        trained = Schedule(**{**vars(schedule), "words": _without_place(schedule.words)})
        bench = Bench(session=session, schedule=trained, tracking=tracking_of(schedule, root.tracking))
        outcomes: dict[tuple[int, str], Outcome] = {}
        clock = _Clock(schedule)
        evidence = _written(schedule, outcomes, session.dir)
        for seed, tasks in schedule.at_once:
            seen: dict[str, list[str]] = {}
            for task in tasks:
                outcome = outcomes[seed, task.name] = _carry_out(bench, task, outcomes, clock)
                if outcome.status == "FINISHED" and task.arm.run is None and not task.arm.own_data:
                    _compare_order(schedule, task, seen, session.dir)
            evidence = _written(schedule, outcomes, session.dir)
        _journaled(evidence, session)
        failures = [
            f"arm {one.arm}, seed {one.seed}: {one.error}"
            for one in outcomes.values()
            if one.status == "FAILED"
        ]
        failures += _lacking(evidence)
        found = Reproduced(
            plugin=stated.name, dir=session.dir, size=schedule.size, evidence=evidence, failures=failures,
        )  # fmt: skip
        told(found)
        if failures:
            raise PluginError(
                "EVIDENCE-FAILED",
                f"plugin {stated.name!r}: {len(failures)} arms failed; the first: {failures[0]}",
                mend="mend it, then go on with --resume", file=session.dir,
            )  # fmt: skip
    return Reproduced(**{**vars(found), "mlflow": session.mlflow})


def fingerprint_of(schedule: Schedule) -> str:
    """SHA-256 of claims, seeds, arms, size, the command line's settings, and the plugin's code."""
    plain = Schedule(**{**vars(schedule), "words": _without_place(schedule.words)})
    return hashlib.sha256(plain.told.encode()).hexdigest()


def finished(schedule: Schedule) -> RunRecord | None:
    """The newest run of what is scheduled, if it has finished."""
    wanted, folder = fingerprint_of(schedule), _own_settings(schedule).run.dir
    runs = list_runs() if folder is None else [read_record(Path(folder))]
    newest = next((one for one in runs if one.verb == VERB and one.fingerprint == wanted), None)
    return newest if newest is not None and newest.status == "FINISHED" else None


def read_finished(schedule: Schedule, folder: Path) -> Reproduced:
    """What a finished run of claims brought.

    Raises:
        DataError: its evidence.json is gone.
    """
    evidence = read_evidence(folder)
    if evidence is None:
        raise DataError(
            "EVIDENCE-FILE", "the run of these claims has finished, but this file of it is gone",
            mend="remove the run's folder, then run the claims again", file=folder / FILE,
        )  # fmt: skip
    return Reproduced(plugin=schedule.stated.name, dir=folder, size=schedule.size, evidence=evidence)


def _check_words(schedule: Schedule) -> None:
    """Refuse settings of the command line that an arm can't take, before any runs.

    Raises:
        UsageError: one that is unknown, or the seed, which is each run's own.
    """
    if any(word.partition("=")[0].strip() == "seed" for word in schedule.words):
        raise UsageError(
            "USAGE", "seed=... would be the seed of no run: each has its own", mend="use --seeds 1,2,3",
            key="seed",
        )  # fmt: skip
    seen: set[tuple[str, ...]] = set()
    for task in schedule.tasks if schedule.words else ():
        if task.arm.run is None and task.arm.plugins not in seen:
            seen.add(task.arm.plugins)
            load_config(plugins=task.arm.plugins, overrides=settings_of(task.arm, schedule.words))


def _own_settings(schedule: Schedule) -> Root:
    """Settings of the parent run: its folder, its name, where numbers go."""
    return load_config(
        overrides=[one for one in schedule.words if one.startswith(("tracking.", "run."))]
    ).root


def tracking_of(schedule: Schedule, told: TrackingConfig) -> TrackingConfig:
    """Where numbers go: MLflow is left out of size smoke, unless the command line asks for it."""
    asked = any(word.startswith("tracking.mlflow") for word in schedule.words)
    mlflow = told.mlflow and (asked or schedule.size != "smoke")
    return TrackingConfig(mlflow=mlflow, uri=told.uri, experiment=told.experiment, tags=dict(told.tags))


def _without_place(words: Sequence[str]) -> tuple[str, ...]:
    """Settings without those that say where the parent lies and what it's called."""
    return tuple(word for word in words if not word.startswith(("run.dir", "run.name")))


def _carry_out(
    bench: Bench, task: Task, outcomes: Mapping[tuple[int, str], Outcome], clock: _Clock
) -> Outcome:
    base = task.arm.after
    if base is not None and outcomes[task.seed, base].status == "FAILED":
        outcome = failed_without_start(task, base)
    else:
        say(clock.line(task))
        clock.begin()
        start = None if base is None else result_of(bench.session.dir / f"seed-{task.seed}" / base).final
        outcome = bench.run(task, start)
        clock.end(task)
    if outcome.status == "FAILED":
        say(f"arm {task.name} of seed {task.seed} failed: {outcome.error}")
    return outcome


def _compare_order(schedule: Schedule, task: Task, seen: dict[str, list[str]], folder: Path) -> None:
    """Refuse an arm that saw other data than those of the same claims (``seen``) did for this seed."""
    ids = consumed(folder / task.place)
    if ids is None:
        say(f"note: arm {task.name} made its data in rounds: their order isn't compared")
        return
    seen[task.name] = ids
    for claim in schedule.claims:
        names = (*claim.arms, *claim.controls)
        if task.name in names and task.seed in schedule.seeds.get(claim.id, ()):
            mine = [(name, seen[name]) for name in names if name in seen]
            check_order(claim, task.seed, mine, schedule.stated.file)


def _written(schedule: Schedule, outcomes: Mapping[tuple[int, str], Outcome], folder: Path) -> dict[str, Any]:
    """evidence.json of what has ended so far."""
    abouts = {task.name: task.arm.about for task in schedule.tasks}
    entries = []
    for claim in schedule.claims:
        seeds = schedule.seeds.get(claim.id, ())
        if seeds or claim.not_tested:
            mine = [one for one in outcomes.values() if one.seed in seeds]
            entry = entry_of(claim, schedule.size, mine, abouts)
            entries.append({**entry, "settings": list(counted(schedule.words))} if seeds else entry)
    tree = tree_of(schedule.stated.folder)
    evidence = {
        "plugin": schedule.stated.name,
        "claims": entries,
        "command": schedule.command,
        "commit": tree.name if tree else "",
        "versions": {**versions(), schedule.stated.card.distribution: schedule.stated.card.version},
        "machine": _machine(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }
    write_json(folder / FILE, evidence)
    return evidence


def _journaled(evidence: Mapping[str, Any], session: Session) -> None:
    """The verdicts, and the differences or levels with their intervals, into the parent's journal."""
    assert session.journal is not None
    for entry in evidence["claims"]:
        session.journal.event(
            "verdict", durable=True, claim=entry["id"], verdict=entry["verdict"], why=entry["why"]
        )
        judged = entry.get("differences")
        if entry["arms"] and entry["kind"] == "level":
            (judged,) = (arm for arm in entry["arms"].values() if arm["role"] == "method")
        if judged is not None:
            low, high = map(decode, judged["interval"])
            values = {"": decode(judged["mean"]), "/low": low, "/high": high}
            session.journal.metrics(
                0, {f"{entry['id']}{part}": value for part, value in values.items()}, "claim"
            )


def _lacking(evidence: Mapping[str, Any]) -> list[str]:
    """Arms that ran and lack their claim's metric, one line each."""
    return [
        f"arm {arm}, seed {seed}: {error} (claim {entry['id']})"
        for entry in evidence["claims"]
        for arm, seeds in entry.get("failures", {}).items()
        for seed, error in seeds.items()
        if error.startswith("it has no metric")
    ]


def _machine() -> str:
    """Processor, cores, memory and GPUs in one line."""
    told = hardware()
    memory = f"{told['memory'] / 2**30:.0f} GiB"
    gpus = [gpu["name"] for gpu in told.get("gpus", ())]
    return ", ".join([told.get("cpu") or platform.machine(), f"{told['threads']} threads", memory, *gpus])


class _Clock:
    """How far a run is, and how long it may still take: arms take as long as for the seeds before."""

    def __init__(self, schedule: Schedule) -> None:
        self._tasks = schedule.tasks
        self._took: dict[str, list[float]] = {}
        self._done = 0
        self._begun = 0.0

    def begin(self) -> None:
        """An arm begins."""
        self._begun = time.monotonic()

    def end(self, task: Task) -> None:
        """It has ended."""
        self._took.setdefault(task.name, []).append(time.monotonic() - self._begun)
        self._done += 1

    def line(self, task: Task) -> str:
        """What comes next, of how much, and how long the rest may take."""
        left = f", about {_spoken(self._left())} left" if self._took else ""
        count = f"arm {self._done + 1} of {len(self._tasks)}"
        return f"{count}{left}: seed {task.seed}, {task.name} ({task.arm.about})"

    def _left(self) -> float:
        known = {name: sum(took) / len(took) for name, took in self._took.items()}
        usual = sum(known.values()) / len(known)
        return sum(known.get(task.name, usual) for task in self._tasks[self._done :])


def _spoken(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
