"""Who computes what: processes that fill one cache share the missing examples out among themselves.

A claim is a list of keys (``.claims/NAME.keys``) beside a lock that its process holds while it computes them.
The operating system lets go of the lock of a process that dies, so its claim is void at once and the next
process takes the keys over.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

FOLDER = ".claims"


class Claims:
    """The claims in a cache's folder. Make and look at them while you hold the cache's own lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER

    def held(self) -> set[bytes]:
        """Keys that living processes compute now; what dead ones claimed is swept away."""
        found: set[bytes] = set()
        for note in sorted(self._folder.glob("*.keys")):
            lock = FileLock(note.with_suffix(".lock"))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                with contextlib.suppress(FileNotFoundError):  # given back just now
                    raw = note.read_bytes()
                    found |= {raw[at : at + 32] for at in range(0, len(raw), 32)}
                continue
            _drop(note, lock)
        for left in self._folder.glob("*.lock"):
            if not left.with_suffix(".keys").exists():
                left.unlink(missing_ok=True)  # its process died before it said what it claims
        return found

    def claim(self, keys: Sequence[bytes]) -> Claim:
        """Say that this process computes ``keys``, until the claim is given back."""
        self._folder.mkdir(exist_ok=True)
        note = self._folder / f"{uuid.uuid4().hex}.keys"
        lock = FileLock(note.with_suffix(".lock"))
        lock.acquire()
        note.write_bytes(b"".join(keys))
        return Claim(note, lock)


class Claim:
    """Keys that this process computes."""

    def __init__(self, note: Path, lock: FileLock) -> None:
        self._note, self._lock = note, lock

    def give_back(self) -> None:
        """The keys are there, or won't be computed by this process."""
        _drop(self._note, self._lock)


def _drop(note: Path, lock: FileLock) -> None:
    note.unlink(missing_ok=True)
    lock.release()
    Path(lock.lock_file).unlink(missing_ok=True)
