"""Small files that are either old or new, never half, and locks that end with their process."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmfw.core.disk import write_whole


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` by the value as json; after a crash it's the old file or the new one."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by the text; after a crash it's the old file or the new one."""
    write_whole(path, text.encode("utf-8", errors="replace"))


def read_json(path: Path) -> dict[str, Any] | None:
    """The json object in a file; None where there's no such file, or it holds something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


_held: set[int] = set()


def _let_go() -> None:
    for handle in _held:
        os.close(handle)
    _held.clear()


# a loader's workers outlive a killed process by seconds; they must not hold its locks
os.register_at_fork(after_in_child=_let_go)


def try_lock(path: Path, tries: int = 1) -> int | None:
    """An open file that holds the lock, None where another has it; the system lets go when the process ends,
    however it ends, and also where it has forked children that live on. Give it back by ``unlock``.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    for attempt in range(tries):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _held.add(handle)
            return handle
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                os.close(handle)
                raise
        if attempt + 1 < tries:
            time.sleep(0.05)
    os.close(handle)
    return None


def unlock(handle: int) -> None:
    """Let go of a lock that ``try_lock`` gave."""
    _held.discard(handle)
    os.close(handle)


@contextlib.contextmanager
def turn(path: Path) -> Iterator[None]:
    """Wait for the lock and hold it; threads exclude one another too."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
