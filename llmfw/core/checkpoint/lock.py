"""One process per run folder: a ``flock`` that dies with its holder, and a probe that the folder can be
written.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from llmfw.core.errors import BusyError, UsageError

NAME = ".lock"
_ORPHANS_SECONDS = 10.0
"""How long to wait for a lock whose holder is dead: its loader workers inherited it and end a few seconds
later.
"""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds (or last held) a run folder."""

    pid: int
    host: str
    started: str

    @property
    def alive(self) -> bool:
        """Whether the process may still run; one on another host counts as alive."""
        if self.host != socket.gethostname():
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except (PermissionError, OverflowError):
            return True
        return True


def holder(run_dir: Path) -> Holder | None:
    """Who holds or last held the folder, as its lock file says; None where nobody did."""
    try:
        entry = json.loads((run_dir / NAME).read_text(encoding="utf-8"))
        return Holder(pid=int(entry["pid"]), host=str(entry["host"]), started=str(entry["started"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def run_lock(run_dir: Path) -> Iterator[Path]:
    """Own the run folder for the length of the block; processes of one run (DDP) share it through rank 0
    alone.

    Raises:
        BusyError: RUN-BUSY, naming the holder's process, host and start.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / NAME
    with path.open("a+", encoding="utf-8") as file:
        _acquire(file.fileno(), run_dir)
        me = Holder(pid=os.getpid(), host=socket.gethostname(), started=time.strftime("%Y-%m-%dT%H:%M:%S%z"))
        file.seek(0)
        file.truncate()
        file.write(json.dumps(asdict(me)))
        file.flush()
        yield path  # closing the file releases the lock


def _acquire(descriptor: int, run_dir: Path) -> None:
    give_up = time.monotonic() + _ORPHANS_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            other = holder(run_dir)
            if other is not None and not other.alive and time.monotonic() < give_up:
                time.sleep(0.2)
                continue
            who = (
                f"process {other.pid} on {other.host}, started {other.started}"
                if other
                else "another process"
            )
            raise BusyError(
                "RUN-BUSY", f"in use by {who}", mend="wait for it, or set another run.dir", file=run_dir
            ) from None


def probe_writable(folder: Path) -> None:
    """Make the folder and write, sync, rename and delete a file in it, so that a run doesn't fail at its
    first checkpoint.

    Raises:
        UsageError: FOLDER-NOT-WRITABLE.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".probe-", dir=folder)
        try:
            os.write(descriptor, b"llmfw")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(name, f"{name}-renamed")
        os.unlink(f"{name}-renamed")
    except OSError as error:
        raise UsageError(
            "FOLDER-NOT-WRITABLE",
            f"can't be written ({error.strerror})",
            mend="choose another with run.dir or checkpoint.dir",
            file=folder,
        ) from None
