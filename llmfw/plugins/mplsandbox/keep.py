"""Bytes by key in a folder that processes share: an entry is whole or absent, and their size is bounded."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock

_LARGEST = 8 << 20
"""Bytes of an entry; what is larger isn't kept."""
_STALE = 3600.0
"""Seconds after which half-written files and locks belong to nobody."""


class Keep:
    """Bytes by key; the least recently used go first. A file is a line with the SHA-256 of the rest.

    Args:
        most: bytes of all entries.

    Raises:
        OSError: the folder can't be made or written.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self.folder, self.most = folder, most
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            pass
        self._lock = Lock()
        self._added = most  # a look at what is there comes with the first entry

    def get(self, key: str) -> bytes | None:
        """The bytes of a key; None: there are none, or they're damaged."""
        place = self._place(key)
        try:
            head, _, data = place.read_bytes().partition(b"\n")
        except OSError:
            return None
        if head.decode("ascii", "replace") != hashlib.sha256(data).hexdigest():
            return None
        with suppress(OSError):
            os.utime(place)
        return data

    def put(self, key: str, data: bytes) -> None:
        """Keep bytes under a key, in place of what was there.

        Raises:
            OSError: they can't be written.
        """
        if len(data) > _LARGEST:
            return
        place = self._place(key)
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd, half = tempfile.mkstemp(dir=place.parent, prefix=".half-")
        try:
            with open(fd, "wb") as file:
                file.write(hashlib.sha256(data).hexdigest().encode() + b"\n" + data)
            os.replace(half, place)
        except BaseException:
            with suppress(OSError):
                os.unlink(half)
            raise
        with self._lock:
            self._added += len(data)
            look = self._added > self.most // 16
            self._added = 0 if look else self._added
        if look:
            self.tidy()

    @contextmanager
    def alone(self, key: str) -> Iterator[bool]:
        """Hold a key against other processes. -> Whether another one held it before."""
        place = self._place(key).with_suffix(".lock")
        try:
            fd, waited = _held(place)
        except OSError:  # a file system without locks: at worst it runs twice
            yield False
            return
        try:
            yield waited
        finally:
            with suppress(OSError):
                place.unlink()
            os.close(fd)

    def tidy(self) -> None:
        """Remove what was used longest ago until a tenth is free, and what the killed left behind."""
        found: list[tuple[float, int, Path]] = []
        old = time.time() - _STALE
        for path in self.folder.glob("*/*"):
            with suppress(OSError):
                stat = path.stat()
                if path.name.startswith(".half-") or path.suffix == ".lock":
                    if stat.st_mtime < old:
                        path.unlink()
                else:
                    found.append((stat.st_mtime, stat.st_size, path))
        total = sum(size for _, size, _ in found)
        if total <= self.most:
            return
        for _, size, path in sorted(found):
            with suppress(OSError):
                path.unlink()
            total -= size
            if total <= self.most * 9 // 10:
                return

    def _place(self, key: str) -> Path:
        return self.folder / key[:2] / key[2:]


def _held(place: Path) -> tuple[int, bool]:
    """An open file that is locked, and is the one of that name still; and whether that took waiting."""
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    waited = False
    while True:
        fd = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waited = True
                fcntl.flock(fd, fcntl.LOCK_EX)
            if _same(fd, place):
                return fd, waited
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        waited = True


def _same(fd: int, place: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(place))
    except FileNotFoundError:
        return False
