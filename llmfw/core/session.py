"""A run's outer life: its folder, lock, journal and MLflow, from the first line to a truthful status."""

from __future__ import annotations

import os
import socket
import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from llmfw.core.assemble import Assembled
from llmfw.core.checkpoint import Places, spare_for
from llmfw.core.discovery import card
from llmfw.core.errors import CheckpointError, DataError, Interrupted, LlmfwError
from llmfw.core.exactness import conditions, exactness_of, recorded, taken_up
from llmfw.core.guard import farewell
from llmfw.core.say import LAUNCH, is_main_process, say
from llmfw.core.schema import TrackingConfig
from llmfw.core.tracking import (
    RUNS,
    Journal,
    MlflowSync,
    RunFolder,
    RunRecord,
    find_resumable,
    open_run,
    read_journal,
    read_record,
    update_record,
)
from llmfw.core.tracking.record import boot_id
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
        begun = found is not None and places_of(resolved.root.checkpoint.dir, found.dir).newest() is not None
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
        ended = how_it_ended(found) if round_dir is None else None
        owned = open_run(folder=found.dir, resume=True, **about)
        if ended:  # a run that still goes has refused us by now
            say(ended)
    if plan.verb == "fit":
        _settle_class(assembled, owned, found, tell=round_dir is None)
    return owned, found is not None


def how_it_ended(record: RunRecord) -> str | None:
    """What to say of a process that left a run without a word; None: it said how it ended."""
    try:
        view = read_journal(record.journal)
    except DataError:
        return None
    said = view.of("status")
    if not said or said[-1].fields.get("status") != "RUNNING":
        return None
    who = f"process {record.pid} on {record.host}"
    if record.boot != boot_id() and record.host == socket.gethostname():
        return f"{who} went down with the machine after step {view.last_step}"
    return f"{who} was killed by signal 9 after step {view.last_step} (out of memory? the kernel's log knows)"


def _settle_class(assembled: Assembled, owned: RunFolder, before: RunRecord | None, *, tell: bool) -> None:
    """Say and write down how exactly the run can be taken up again; one that is, keeps its weakest class."""
    root = assembled.resolved.root
    now = conditions(root, assembled.plan.settings)
    promised = exactness_of(assembled.plan, root, stateless=_stateless(assembled))
    earlier = recorded(before.resume_class, before.resume_reasons) if before else None
    found = taken_up(promised, before.conditions if before else {}, now, earlier)
    if tell:
        say(str(found))
    update_record(owned.dir, resume_class=found.grade, resume_reasons=found.reasons, conditions=now)


def _stateless(assembled: Assembled) -> str | None:
    """What keeps no position in the data."""
    from lightning.pytorch import LightningDataModule

    if isinstance(assembled.plan.one("llmfw_datamodule"), LightningDataModule):
        return f"the LightningDataModule of plugin {assembled.plan.owner('llmfw_datamodule')!r}"
    return None


def places_of(setting: str | None, folder: Path) -> Places:
    """Where a run's checkpoints lie; rounds of one run never share a folder."""
    if setting is None:
        place = folder / "checkpoints"
    else:
        place = Path(setting) / folder.name if folder.parent.name == "rounds" else Path(setting)
    return Places(place, spare_for(read_record(folder).id))


def _card(name: str) -> dict[str, Any]:
    found = card(name)
    return {
        "summary": found.summary, "kinds": list(found.kinds), "distribution": found.origin,
        "paper": dict(found.paper), "neutral": dict(found.neutral),
    }  # fmt: skip
