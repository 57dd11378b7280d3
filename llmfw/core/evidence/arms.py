"""One arm for one seed: a training nested in the run of claims, or a function that measures."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from llmfw.core.assemble import Settled, settle
from llmfw.core.claims import Arm, Workspace
from llmfw.core.costs import Cost, peak_memory
from llmfw.core.determinism import seed_all
from llmfw.core.discovery import cards, owner_of
from llmfw.core.errors import Interrupted
from llmfw.core.evidence.definition import define_function
from llmfw.core.evidence.git import tree_of
from llmfw.core.evidence.outcome import Outcome, begun_at, checked, keep, kept_in
from llmfw.core.evidence.schedule import Schedule, Task
from llmfw.core.evidence.verdict import Value
from llmfw.core.guard import Owner, answering
from llmfw.core.models.rng import global_state, restore_state
from llmfw.core.say import brief, say
from llmfw.core.schema import TrackingConfig
from llmfw.core.series import Child, figures_of, line_of, note, open_child, run_child
from llmfw.core.session import Session


@dataclass(kw_only=True)
class Bench:
    """Where arms are run: the open parent run, and what arms of one seed share."""

    session: Session
    schedule: Schedule
    tracking: TrackingConfig
    _prepared: dict[tuple[int, str], Mapping[str, Any]] = field(default_factory=dict)
    _commit: str = field(init=False)
    """Whose code this process has read, whatever is committed meanwhile; + where it isn't sure."""

    def __post_init__(self) -> None:
        self._commit = self._commit_now()

    def run(self, task: Task, starts_from: Path | None) -> Outcome:
        """Carry an arm out, or go on with it, or read what it brought before; written down as it ends.

        An arm that fails is an outcome too; interruptions pass through.
        """
        folder = self.session.dir / task.place
        if (done := kept_in(folder, task.definition)) is not None:
            return done
        if self._commit_now() not in ("", self._commit) and not self._commit.endswith("+"):
            say("note: the code's commit has changed since this began: values from here on can't be filed")
            self._commit += "+"
        if begun_at(folder) not in (None, self._commit):
            say(f"note: {task.place} was begun at another commit: it begins anew")
            shutil.rmtree(folder)
        about: dict[str, Any] = {
            "seed": task.seed, "arm": task.name, "definition": task.definition, "commit": self._commit,
        }  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        keep(folder, Outcome(status="RUNNING", **about))
        try:
            first = task.seed == self.schedule.tasks[0].seed  # other seeds' data look alike
            with own_randomness(task.seed, "arm", task.name), nullcontext() if first else brief():
                values, cost = (self._measure if task.arm.run else self._train)(task, starts_from)
            outcome = Outcome(status="FINISHED", values=values, cost=cost, **about)
        except (Interrupted, KeyboardInterrupt):
            raise
        except (Exception, SystemExit) as error:
            said = line_of(error)
            outcome = Outcome(status="FAILED", error=said, **about)
            note(self.session, Child(place=task.place, dir=folder, status="FAILED", error=said))
        keep(folder, outcome)
        return outcome

    def _commit_now(self) -> str:
        tree = tree_of(self.schedule.stated.folder)
        return tree.name if tree else ""

    def _train(self, task: Task, starts_from: Path | None) -> tuple[dict[str, Value], dict[str, Any]]:
        found = dict(self._prepare(task))
        if starts_from is not None:
            found["model.name"] = starts_from
        mine = ["trainer.progress=false", *settings_of(task.arm, self.schedule.words, found)]
        mine += [f"seed={task.seed}", f"tracking.mlflow={word_of(self.tracking.mlflow)}"]

        def settled(*words: str) -> Settled:
            return settle(plugins=task.arm.plugins, overrides=[*mine, *words])

        child = run_child(self.session, task.place, settled, name=f"{task.name}-seed-{task.seed}", catch=())
        assert child.result is not None
        values: dict[str, Value] = dict(figures_of(child.result))
        if task.arm.values is not None:
            with answering(self._owner, f"values of arm {task.name!r}", task.arm.values):
                values |= checked(task.arm.values(child.result), task.name)
        # checkpoints are for going on with a run that hasn't ended
        shutil.rmtree(child.dir / "checkpoints", ignore_errors=True)
        return values, _cost_json(child.result.cost)

    def _measure(self, task: Task, starts_from: Path | None) -> tuple[dict[str, Value], dict[str, Any]]:
        run, size, settings = task.arm.run, self.schedule.size, self._prepare(task)
        assert run is not None
        start = time.monotonic()
        child = open_child(
            self.session,
            task.place,
            name=f"{task.name}-seed-{task.seed}",
            verb="measure",
            fingerprint=task.definition,
            tracking=self.tracking,
            plugins=[self.schedule.stated.name],
            config={"seed": task.seed, "size": size, **settings},
        )
        with child as inner, peak_memory() as peak:
            work = inner.dir / "files"
            shutil.rmtree(work, ignore_errors=True)  # what a killed process left would be taken for results
            work.mkdir()
            where = Workspace(dir=work.absolute(), seed=task.seed, size=size, starts_from=starts_from)
            with answering(self._owner, f"arm {task.name!r}", run):
                values = checked(run(where), task.name)
            single = {name: value for name, value in values.items() if not isinstance(value, tuple)}
            assert inner.journal is not None
            inner.journal.metrics(0, single, stage="end")
            cost = Cost(
                seconds=time.monotonic() - start, memory=peak.how,
                host_gib=None if peak.host is None else peak.host / 2**30,
                gpu_gib=None if peak.gpu is None else peak.gpu / 2**30,
            )  # fmt: skip
        return values, _cost_json(cost)

    def _prepare(self, task: Task) -> Mapping[str, Any]:
        """Settings from the arm's ``prepare``, called once a process for arms of one seed that share it."""
        prepare = task.arm.prepare
        if prepare is None:
            return {}
        key = (task.seed, define_function(prepare, self.schedule.stated.folder))
        if key not in self._prepared:
            shared = self.session.dir / f"seed-{task.seed}" / f"shared-{key[1]}"
            shared.mkdir(parents=True, exist_ok=True)
            # not the arm's own numbers: which arm comes first depends on interruptions
            with (
                own_randomness(task.seed, "prepare", key[1]),
                answering(self._owner, f"prepare of arm {task.name!r}", prepare),
            ):
                given = prepare(shared.absolute())
            if not isinstance(given, Mapping):
                raise self.schedule.stated.broken(
                    f"prepare of arm {task.name!r} gave {type(given).__name__}, not settings"
                )
            self._prepared[key] = given
        return self._prepared[key]

    @property
    def _owner(self) -> Owner:
        return owner_of(self.schedule.stated.card)


@contextmanager
def own_randomness(seed: int, *labels: str) -> Iterator[None]:
    """Global generators start from the seed and labels, whatever ran before, and are put back afterwards."""
    before = global_state()
    seed_all(seed, *labels)
    try:
        yield
    finally:
        restore_state(before)


def settings_of(arm: Arm, words: Sequence[str], found: Mapping[str, Any] = MappingProxyType({})) -> list[str]:
    """An arm's settings as on the command line: its own, those that were ``found``, then the user's ``words``
    without those of plugins that are off in it.
    """
    off = set(cards()) - set(arm.plugins)
    fitting = [word for word in words if word.partition("=")[0].partition(".")[0] not in off]
    return [*(f"{key}={word_of(value)}" for key, value in {**arm.settings, **found}.items()), *fitting]


def word_of(value: Any) -> str:
    """A setting's value as on the command line."""
    return str(value) if isinstance(value, (str, Path)) else json.dumps(value)


def _cost_json(cost: Cost) -> dict[str, Any]:
    """What evidence.json keeps of a cost; rounded, as no verdict hangs on it."""
    told = {name: getattr(cost, name) for name in ("tokens", "seconds", "host_gib", "gpu_gib")}
    known = {name: round(value, 3) for name, value in told.items() if value}
    return {**known, "memory": cost.memory} if cost.memory else known


def failed_without_start(task: Task, base: str) -> Outcome:
    """Of an arm whose starting weights don't exist."""
    return Outcome(
        seed=task.seed, arm=task.name, definition=task.definition, status="FAILED",
        error=f"arm {base}, from whose weights it starts, failed",
    )  # fmt: skip
