"""A run's folder: made, locked, described in run.json, found again, and told dead from alive.

run.json  config.yaml  plan.json  cards.json  environment.json  git.diff
journal.jsonl  checkpoints/  final/  tables/*.json
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from llmfw.core.errors import BusyError, ResourceError, UsageError
from llmfw.core.tracking.files import read_json, write_json, write_text
from llmfw.core.tracking.journal import Journal
from llmfw.core.tracking.redaction import redact, redact_text

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
RUNS = Path("runs")
"""Where runs live unless ``run.dir`` says otherwise."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What run.json says. ``dir`` is where it was read; it isn't written."""

    dir: Path
    id: str
    name: str
    created: str
    """Start, as ISO 8601 in UTC."""
    status: Status = "RUNNING"
    verb: str = "fit"
    plugins: tuple[str, ...] = ()
    fingerprint: str = ""
    parent: str | None = None
    """``id`` of the run that this one is a round of."""
    pid: int = 0
    host: str = ""
    boot: str = ""
    """Names the machine's present start, so that a restart tells dead from alive."""
    ended: str | None = None
    mlflow: Mapping[str, str] = field(default_factory=dict)
    """uri, experiment and run_id, as far as they are known."""

    @property
    def journal(self) -> Path:
        """The journal's path."""
        return self.dir / "journal.jsonl"


class RunFolder:
    """A run that this process owns: holds its lock, writes its journal and run.json. Close it with a truthful
    status.
    """

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
            update_record(self.dir, status=status, ended=_now())
            os.close(self._lock)
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
    """Make the run's folder, or with ``resume`` take over the one in ``folder``, and write down what decides
    the run.

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
            "boot": _boot(),
            "ended": None,
        }
        if old is None:
            record = RunRecord(
                dir=place,
                id=uuid.uuid4().hex,
                name=name,
                created=_now(),
                verb=verb,
                plugins=tuple(plugins),
                fingerprint=fingerprint,
                parent=parent,
            )
            _write_record(replace(record, **here))
        else:
            update_record(place, **here)
        _describe(place, config_yaml, plan, cards)
        opened = RunFolder(place, lock)
        if config is not None:
            opened.journal.event("params", values=redact(dict(config)))
        opened.journal.event("status", status="RUNNING")
    except OSError as error:
        os.close(lock)
        raise _unwritable(place, error) from error
    except BaseException:
        os.close(lock)
        raise
    return opened


def read_record(folder: Path) -> RunRecord:
    """run.json of a folder.

    Raises:
        UsageError: there is none, or it isn't ours.
    """
    raw = read_json(folder / "run.json")
    if raw is None:
        raise UsageError(
            "NO-RUN",
            "this is no folder of a run (no readable run.json)",
            file=folder,
            mend="name a folder under runs/",
        )
    known = {item.name for item in fields(RunRecord)} - {"dir"}
    values = {key: value for key, value in raw.items() if key in known}
    sound = all(isinstance(values.get(key), str) for key in ("id", "name", "created")) and values.get(
        "status"
    ) in get_args(Status)
    if (
        not sound
        or not isinstance(values.get("plugins", []), list)
        or not isinstance(values.get("mlflow", {}), dict)
    ):
        raise UsageError("RUN-JSON", "run.json is damaged", file=folder / "run.json", mend="name another run")
    values["plugins"] = tuple(str(item) for item in values.get("plugins", ()))
    return RunRecord(dir=folder, **values)


def update_record(folder: Path, **changes: Any) -> RunRecord:
    """Change fields of run.json; threads and processes wait for one another."""
    with _turn(folder):
        record = replace(read_record(folder), **changes)
        _write_record(record)
    return record


def list_runs(runs: Path = RUNS) -> list[RunRecord]:
    """Runs under a folder, newest first; a RUNNING one whose process is gone is marked as KILLED. Rounds are
    left out.
    """
    found = []
    for path in runs.glob("*/run.json"):
        with suppress(UsageError):
            found.append(reap(read_record(path.parent)))
    return sorted(found, key=lambda record: (record.created, record.dir.name), reverse=True)


def reap(record: RunRecord) -> RunRecord:
    """The record, marked KILLED if it says RUNNING and nobody runs it."""
    if record.status != "RUNNING" or not _is_dead(record):
        return record
    with suppress(OSError):
        return update_record(record.dir, status="KILLED", ended=_now())
    return replace(record, status="KILLED")


def find_resumable(fingerprint: str, folder: Path | None = None, runs: Path = RUNS) -> RunRecord | None:
    """The newest unfinished run with this fingerprint: in ``folder`` where one is given, else under ``runs``.
    None: there is none.
    """
    if folder is not None:
        with suppress(UsageError):
            record = reap(read_record(folder))
            return record if record.status != "FINISHED" and record.fingerprint == fingerprint else None
        return None
    wanted = (
        record
        for record in list_runs(runs)
        if record.status != "FINISHED" and record.fingerprint == fingerprint
    )
    return next(wanted, None)


def find_run(name: str, runs: Path = RUNS) -> RunRecord:
    """The run that a user means: a folder, a folder's name under ``runs``, a run's name or id, or an MLflow
    run id (or their start).

    Raises:
        UsageError: no run or several runs are meant.
    """
    for place in (Path(name), runs / name):
        if (place / "run.json").is_file():
            return reap(read_record(place))
    known = list_runs(runs)
    exact = [record for record in known if name in _names(record)]
    begun = [
        record for record in known if len(name) >= 3 and any(own.startswith(name) for own in _names(record))
    ]
    for found in (exact, begun):
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(
                "RUN-AMBIGUOUS",
                f"{name!r} means {len(found)} runs: {', '.join(record.dir.name for record in found[:5])}",
                mend="name the folder",
            )
    raise UsageError(
        "RUN-UNKNOWN",
        f"no run is called {name!r} under {runs}",
        mend=f"name a folder, e.g. {known[0].dir}" if known else "train one: llmfw fit",
    )


def _names(record: RunRecord) -> list[str]:
    return [record.dir.name, record.name, record.id, record.mlflow.get("run_id", "")]


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


def _write_record(record: RunRecord) -> None:
    values = asdict(record)
    del values["dir"]
    write_json(record.dir / "run.json", values)


def try_lock(path: Path, tries: int = 1) -> int | None:
    """An open file that holds the lock, None where another has it; the system lets go when the process ends,
    however it ends.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    for attempt in range(tries):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                os.close(handle)
                raise
        if attempt + 1 < tries:
            time.sleep(0.05)
    os.close(handle)
    return None


def _own(place: Path) -> int:
    handle = try_lock(place / ".lock", tries=10)  # a listing looks at the lock for an instant
    if handle is None:
        raw = read_json(place / "run.json") or {}
        raise BusyError(
            "RUN-BUSY",
            "process {} on {} owns the folder".format(raw.get("pid", "?"), raw.get("host", "?")),
            file=place,
            mend="wait for it, stop it, or set run.dir to another folder",
        )
    return handle


def _is_dead(record: RunRecord) -> bool:
    """Whether the run's process is gone for sure: its machine was restarted, or its lock is free.

    A process id alone would not do: ids are used again, and a process's start time moves with the clock.
    """
    if record.boot != _boot():
        return record.host == socket.gethostname()
    try:
        handle = os.open(record.dir / ".lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    handle = os.open(folder / ".record.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


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
