"""A run's folder: made, locked, and described.

run.json  config.yaml  plan.json  cards.json  environment.json  git.diff
journal.jsonl  checkpoints/  final/  tables/*.json  evaluations/*.json
"""

from __future__ import annotations

import errno
import os
import re
import socket
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from llmfw.core.errors import BusyError, ResourceError, UsageError
from llmfw.core.tracking.files import read_json, try_lock, unlock, write_json, write_text
from llmfw.core.tracking.journal import Journal
from llmfw.core.tracking.record import (
    RUNS,
    RunRecord,
    Status,
    boot_id,
    now,
    read_record,
    update_record,
    write_record,
)
from llmfw.core.tracking.redaction import redact, redact_text


class RunFolder:
    """A run that this process owns: its lock, its journal, its run.json. Close it with a truthful status."""

    def __init__(self, folder: Path, lock: int) -> None:
        self.dir = folder
        self._lock = lock
        self.journal = Journal(folder / "journal.jsonl")

    @property
    def record(self) -> RunRecord:
        """run.json as it is now."""
        return read_record(self.dir)

    def close(self, status: Status) -> None:
        """Write the last status, close the journal, let go of the lock; a second call does nothing."""
        if self._lock >= 0:
            self.journal.event("status", status=status)
            self.journal.close()
            update_record(self.dir, status=status, ended=now())
            unlock(self._lock)
            self._lock = -1

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._lock >= 0:
            self.close(
                "FINISHED" if kind is None else "KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED"
            )


def open_run(
    *,
    name: str,
    folder: Path | None = None,
    runs: Path = RUNS,
    resume: bool = False,
    verb: str = "fit",
    plugins: Sequence[str] = (),
    fingerprint: str = "",
    parent: str | None = None,
    config: Mapping[str, Any] | None = None,
    config_yaml: str | None = None,
    plan: Mapping[str, Any] | None = None,
    cards: Mapping[str, Any] | None = None,
) -> RunFolder:
    """Make a run's folder (``resume``: take over the one in ``folder``), and write down what decides the run.

    ``config`` is the flat form (dotted key -> value); it becomes the journal's params. Secrets are taken out
    of everything.

    Raises:
        BusyError: another process owns the folder.
        UsageError: the folder can't be written, or already holds a run (without ``resume``), or holds none
        (with it). ResourceError: the disk is full.
    """
    try:
        place = _new_folder(runs, name) if folder is None else Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        lock = _own(place)
    except OSError as error:
        raise _unwritable(folder or runs, error) from error
    try:
        old = read_json(place / "run.json")
        if resume and old is None:
            raise UsageError(
                "NO-RUN",
                "the folder holds no run to go on with",
                file=place,
                mend="leave --resume out, or name another folder",
            )
        if old is not None and not resume:
            raise UsageError(
                "RUN-EXISTS",
                "the folder already holds a run",
                file=place,
                mend="add --resume to go on with it, or set run.dir to another folder",
            )
        here: dict[str, Any] = {
            "status": "RUNNING",
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "boot": boot_id(),
            "started": now(),
            "ended": None,
        }
        if old is None:
            record = RunRecord(
                dir=place,
                id=uuid.uuid4().hex,
                name=name,
                created=now(),
                verb=verb,
                plugins=tuple(plugins),
                fingerprint=fingerprint,
                parent=parent,
            )
            write_record(replace(record, **here))
        else:
            update_record(place, **here)
        _describe(place, config_yaml, plan, cards)
        opened = RunFolder(place, lock)
        if config is not None:
            opened.journal.event("params", values=redact(dict(config)))
        opened.journal.event("status", status="RUNNING")
    except OSError as error:
        unlock(lock)
        raise _unwritable(place, error) from error
    except BaseException:
        unlock(lock)
        raise
    return opened


def _describe(
    place: Path, config_yaml: str | None, plan: Mapping[str, Any] | None, cards: Mapping[str, Any] | None
) -> None:
    from llmfw.core.tracking.surroundings import environment

    if config_yaml is not None:
        write_text(place / "config.yaml", redact_text(config_yaml))
    for name, value in (("plan.json", plan), ("cards.json", cards)):
        if value is not None:
            write_json(place / name, redact(value))
    facts, diff = environment()
    write_json(place / "environment.json", facts)
    if diff is not None:
        write_text(place / "git.diff", diff)


def _new_folder(runs: Path, name: str) -> Path:
    """TIME-NAME, made by this process and no other."""
    plain = re.sub(r"[^\w+-]+", "-", name, flags=re.ASCII).strip("-")[:60] or "run"
    stem = f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{plain}"
    runs.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, 1000):
        place = runs / (stem if attempt == 1 else f"{stem}-{attempt}")
        with suppress(FileExistsError):
            place.mkdir()
            return place
    raise UsageError("RUN-FOLDER", "a thousand runs began within one second", file=runs, mend="set run.dir")


def _own(place: Path) -> int:
    handle = try_lock(place / ".lock", tries=10)  # a listing looks at the lock for an instant
    if handle is None:
        raw = read_json(place / "run.json") or {}
        raise BusyError(
            "RUN-BUSY",
            "process {} on {}, begun {}, owns the folder".format(
                *(raw.get(key) or "?" for key in ("pid", "host", "started"))
            ),
            file=place,
            mend="wait for it, stop it, or set run.dir to another folder",
        )
    return handle


def _unwritable(place: Path, error: OSError) -> UsageError | ResourceError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceError(
            "DISK-FULL",
            "no space left for the run's folder",
            file=place,
            mend="free space or set run.dir to another disk",
        )
    return UsageError(
        "RUN-FOLDER",
        f"the run's folder can't be written ({error.strerror})",
        file=place,
        mend="set run.dir to a folder that can be written",
    )
