"""A run's outer life: its folder, lock, journal and MLflow, from the first line to a truthful status."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from llmfw.core.assemble import Assembled
from llmfw.core.checkpoint import newest_verified
from llmfw.core.discovery import card
from llmfw.core.errors import CheckpointError, Interrupted
from llmfw.core.say import is_main_process, say
from llmfw.core.schema import TrackingConfig
from llmfw.core.tracking import RUNS, Journal, MlflowSync, RunFolder, find_resumable, open_run

Resume = Literal["never", "auto", "must"]
_FOLDER = "LLMFW_RUN_DIR"
"""Tells the run's folder to the processes that this one starts."""


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
        yield Session(dir=round_dir or Path(os.environ[_FOLDER]), journal=None, resumed=resume != "never")
        return
    owned, resumed = _open(assembled, resume, parent, round_dir)
    session = Session(dir=owned.dir, journal=owned.journal, resumed=resumed, id=owned.record.id)
    if round_dir is None:
        os.environ[_FOLDER] = str(owned.dir.absolute())
    with kept(owned, session, assembled.resolved.root.tracking):
        yield session


@contextmanager
def kept(owned: RunFolder, session: Session, tracking: TrackingConfig) -> Iterator[None]:
    """Tell MLflow of an open run while the block lasts, and close the run with what became of it."""
    sync = None
    if tracking.mlflow:
        sync = MlflowSync(owned.dir, tracking.uri, tracking.experiment, runs=RUNS, tags=tracking.tags)
        sync.start()
    status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED"
    try:
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
        owned = open_run(folder=found.dir, resume=True, **about)
    return owned, found is not None


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
