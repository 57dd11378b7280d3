"""run.json: what it says, how it's changed, how runs are found again and dead ones told from living ones."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from llmfw.core.errors import UsageError
from llmfw.core.tracking.files import read_json, turn, write_json

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
RUNS = Path("runs")
"""Where runs live unless ``run.dir`` says otherwise."""
SPLIT = (
    "trainer.micro_batch",
    "trainer.accumulate",
    "trainer.batch",
    "trainer.devices",
    "trainer.nodes",
    "trainer.strategy",
    "trainer.accelerator",
    "trainer.deepspeed",
    "trainer.threads",
)
"""Settings that deal a step's work out over micro-batches, processes and threads. They move the rounding of
sums and no more: runs that differ in them alone have one fingerprint, as long as the global batch is one."""


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
    """``id`` of the run in which this one is nested: as a round, a recipe or a sweep's trial."""
    pid: int = 0
    host: str = ""
    boot: str = ""
    """Names the machine's present start, so that a restart tells dead from alive."""
    started: str = ""
    """When the process that has the run, or had it last, began, as ISO 8601 in UTC."""
    ended: str | None = None
    mlflow: Mapping[str, str] = field(default_factory=dict)
    """uri, experiment and run_id, as far as they are known."""
    resume_class: str = ""
    """How exactly the run can be taken up after a kill: A, B or C; "" where it isn't known."""
    resume_reasons: tuple[str, ...] = ()
    """What keeps it from a better class."""
    conditions: Mapping[str, str] = field(default_factory=dict)
    """What moves the rounding of its sums and isn't in its fingerprint: threads, processor, torch's build."""

    @property
    def journal(self) -> Path:
        """The journal's path."""
        return self.dir / "journal.jsonl"


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
        or not isinstance(values.get("resume_reasons", []), list)
        or not all(isinstance(values.get(key, {}), dict) for key in ("mlflow", "conditions"))
    ):
        raise UsageError("RUN-JSON", "run.json is damaged", file=folder / "run.json", mend="name another run")
    for key in ("plugins", "resume_reasons"):
        values[key] = tuple(str(item) for item in values.get(key, ()))
    return RunRecord(dir=folder, **values)


def update_record(folder: Path, **changes: Any) -> RunRecord:
    """Change fields of run.json; threads and processes wait for one another."""
    with turn(folder / ".record.lock"):
        record = replace(read_record(folder), **changes)
        write_record(record)
    return record


def write_record(record: RunRecord) -> None:
    values = asdict(record)
    del values["dir"]
    write_json(record.dir / "run.json", values)


def list_runs(runs: Path = RUNS) -> list[RunRecord]:
    """Runs under a folder, without rounds, newest first; a RUNNING one without a process becomes KILLED."""
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
        return update_record(record.dir, status="KILLED", ended=now())
    return replace(record, status="KILLED")


def find_resumable(fingerprint: str, folder: Path | None = None, runs: Path = RUNS) -> RunRecord | None:
    """The newest unfinished run with this fingerprint, in ``folder`` if one is given, else under ``runs``."""
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
    """The run that a user means: a folder, its name, a run's name or id, MLflow's id, or a start of these.

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


def boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _names(record: RunRecord) -> list[str]:
    return [record.dir.name, record.name, record.id, record.mlflow.get("run_id", "")]


def _is_dead(record: RunRecord) -> bool:
    """Whether the run's process is gone for sure: its machine was restarted, or its lock is free.

    A process id alone would not do: ids are used again, and a process's start time moves with the clock.
    """
    if record.boot != boot_id():
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
