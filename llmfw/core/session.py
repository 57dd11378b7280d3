"""A run's outer life: its folder, lock, journal and MLflow, from the first line to a truthful status."""

from __future__ import annotations

import os
import traceback
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from llmfw.core.assemble import Assembled
from llmfw.core.checkpoint import newest_verified
from llmfw.core.discovery import card
from llmfw.core.errors import CheckpointError, Interrupted, LlmfwError
from llmfw.core.guard import farewell
from llmfw.core.plan import split_of
from llmfw.core.say import LAUNCH, is_main_process, say
from llmfw.core.schema import TrackingConfig
from llmfw.core.tracking import RUNS, Journal, MlflowSync, RunFolder, find_resumable, open_run
from llmfw.core.tracking.files import read_json
from llmfw.core.training.launch import hear, launched, tell

Resume = Literal["never", "auto", "must"]
_FOLDER, _RESUMED = "LLMFW_RUN_DIR", "LLMFW_RUN_RESUMED"
"""Tell the run's folder, and whether it goes on, to the processes that this one starts."""


@dataclass(kw_only=True)
class Session:
    """An open run. ``journal`` is None in every process but the main one."""

    dir: Path
    journal: Journal | None
    resumed: bool = False
    id: str | None = None
    unsent: int = 0
    """Items that MLflow hadn't acknowledged when the run closed."""
    mlflow: dict[str, str] = field(default_factory=dict)


@contextmanager
def open_session(
    assembled: Assembled, resume: Resume, *, parent: Session | None = None, round_dir: Path | None = None
) -> Iterator[Session]:
    """Make the run's folder (or take over an unfinished run's), keep its journal, tell MLflow, and close it
    truthfully.

    Raises:
        CheckpointError: ``resume="must"`` and there is nothing to go on with.
        BusyError, UsageError, ResourceError: the folder is another run's, or can't be written.
    """
    if not is_main_process():
        if launched() is not None:
            told = hear()
            folder, resumed = Path(told["folder"]), bool(told["resumed"])
        else:
            folder, resumed = Path(os.environ[_FOLDER]), os.environ.get(_RESUMED) == "1"
        yield Session(dir=round_dir or folder, journal=None, resumed=resumed)
        return
    try:
        owned, resumed = _open(assembled, resume, parent, round_dir)
    except LlmfwError as error:
        tell(error)
        raise
    session = Session(dir=owned.dir, journal=owned.journal, resumed=resumed, id=owned.record.id)
    tell({"folder": str(owned.dir.absolute()), "resumed": resumed})
    announced = nullcontext() if round_dir else _announced(owned.dir, resumed)
    with announced, kept(owned, session, assembled.resolved.root.tracking):
        yield session


@contextmanager
def _announced(folder: Path, resumed: bool) -> Iterator[None]:
    """Let the processes that are started meanwhile know the run's folder, and that they belong together."""
    before = {name: os.environ.get(name) for name in (_FOLDER, _RESUMED, LAUNCH)}
    os.environ[_FOLDER], os.environ[_RESUMED] = str(folder.absolute()), str(int(resumed))
    os.environ.setdefault(LAUNCH, uuid.uuid4().hex)
    try:
        yield
    except BaseException as error:
        error.launch = os.environ[LAUNCH]  # type: ignore[attr-defined]  # the others may have told it already
        raise
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def kept(owned: RunFolder, session: Session, tracking: TrackingConfig) -> Iterator[None]:
    """Tell MLflow of an open run while the block lasts, and close the run with what became of it."""
    sync = None
    if tracking.mlflow:
        sync = MlflowSync(owned.dir, tracking.uri, tracking.experiment, runs=RUNS, tags=tracking.tags)
        sync.start()
    status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED"

    def hung(report: str) -> None:
        (owned.dir / "crash.txt").write_text(report, encoding="utf-8")
        owned.close("FAILED")

    try:
        with farewell(hung):
            yield
    except BaseException as error:
        status = "KILLED" if isinstance(error, (KeyboardInterrupt, Interrupted)) else "FAILED"
        error.run_dir = owned.dir  # type: ignore[attr-defined]  # the command line keeps the traceback there
        if status == "FAILED":
            (owned.dir / "crash.txt").write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        raise
    finally:
        record = owned.record
        owned.close(status)
        if sync is not None:
            # a first sqlite store takes its time to be made; a run that is told to go has less of it
            patient = sync.uri.startswith("sqlite") and status == "FINISHED"
            session.unsent = sync.finish(status, timeout=60.0 if patient else 10.0)
            record = owned.record
        session.mlflow = dict(record.mlflow)


def _open(
    assembled: Assembled, resume: Resume, parent: Session | None, round_dir: Path | None
) -> tuple[RunFolder, bool]:
    plan, resolved = assembled.plan, assembled.resolved
    wanted = round_dir or (Path(resolved.root.run.dir) if resolved.root.run.dir else None)
    about: dict[str, Any] = {
        "name": assembled.run.name if round_dir is None else f"{assembled.run.name}-{round_dir.name}",
        "verb": plan.verb,
        "plugins": [name for name, _ in plan.plugins],
        "fingerprint": plan.fingerprint,
        "parent": parent.id if parent else None,
        "config": resolved.flat(),
        "config_yaml": resolved.to_yaml(),
        "plan": {**plan.as_dict(), "hash": plan.hash, "fingerprint": plan.fingerprint},
        "cards": {name: _card(name) for name, _ in plan.plugins},
    }
    found = None
    if round_dir is not None:
        resume = "auto" if (round_dir / "run.json").exists() else "never"
    if resume != "never":
        found = find_resumable(plan.fingerprint, wanted) if wanted else find_resumable(plan.fingerprint)
        begun = (
            found is not None
            and newest_verified(checkpoint_dir(resolved.root.checkpoint.dir, found.dir)) is not None
        )
        if resume == "must" and not begun:
            where = f"in {found.dir}" if found else (f"in {wanted}" if wanted else "under runs/")
            what = "checkpoint" if found else "unfinished run with these settings"
            raise CheckpointError(
                "NOTHING-TO-RESUME",
                f"there is no {what} {where}",
                mend="start it with --resume (= auto) or without",
            )
    if found is None:
        if resume == "auto" and round_dir is None:
            say("nothing to resume: no unfinished run with these settings; starting afresh")
        owned = open_run(folder=wanted, **about)
    else:
        begun_with = (read_json(found.dir / "plan.json") or {}).get("settings", {})
        owned = open_run(folder=found.dir, resume=True, **about)
        _say_class(begun_with, plan.settings)
    return owned, found is not None


def _say_class(begun_with: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """How exact a resumed run is: bit for bit only where the work is dealt out as before."""
    old, new = split_of(begun_with), split_of(settings)
    changed = [
        f"{key.removeprefix('trainer.')} {old[key]} -> {new[key]}" for key in new if old[key] != new[key]
    ]
    if not changed:
        say("resume class A: bit for bit what the run would have been without a stop")
        return
    say(
        f"resume class B ({', '.join(changed)}): the same samples in every step, but sums are rounded in "
        "another order, and dropout draws other masks"
    )


def checkpoint_dir(setting: str | None, folder: Path) -> Path:
    """Where a run's checkpoints lie; rounds of one run never share a folder."""
    if setting is None:
        return folder / "checkpoints"
    return Path(setting) / folder.name if folder.parent.name == "rounds" else Path(setting)


def _card(name: str) -> dict[str, Any]:
    found = card(name)
    return {
        "summary": found.summary, "kinds": list(found.kinds), "distribution": found.origin,
        "paper": dict(found.paper), "neutral": dict(found.neutral),
    }  # fmt: skip
