"""Removing cached things: never one that a process works on, never anything outside the cache."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from filelock import FileLock, Timeout

from llmfw.core.cache.entries import Entry
from llmfw.core.cache.place import cache_root
from llmfw.core.errors import BusyError, UsageError

_REMOVED = ".removed-"


def remove(entry: Entry) -> int:
    """Delete an entry; returns the bytes that its files had. A link is deleted, and what it leads to stays.

    The entry loses its name first, so that a half-deleted one is never taken for whole.

    Raises:
        BusyError: CACHE-BUSY, another process builds or fills it.
        UsageError: CACHE-OUTSIDE, it doesn't lie in the cache folder; CACHE, it can't be deleted.
    """
    for path in entry.paths:
        _refuse_outside(path)
    with ExitStack() as held:
        for path in entry.paths:
            for lock in _locks(path):
                try:
                    held.enter_context(FileLock(lock).acquire(timeout=0))
                except Timeout:
                    raise BusyError(
                        "CACHE-BUSY", "another process builds or fills it", file=path, mend="wait for its end"
                    ) from None
                except OSError as error:
                    raise _denied(path, error) from error
        for path in entry.paths:
            try:
                _delete(path)
            except OSError as error:
                raise _denied(path, error) from error
    return entry.size


def _delete(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    for old in path.parent.glob(f"{_REMOVED}*"):  # of a removal that was killed
        shutil.rmtree(old, ignore_errors=True)
    hidden = path.with_name(f"{_REMOVED}{path.name}-{os.getpid()}")
    path.rename(hidden)
    shutil.rmtree(hidden)


def _refuse_outside(path: Path) -> None:
    """An entry's own folder must lie in the cache, and not only seem to."""
    root = cache_root().resolve()
    if path.parent.resolve().parent != root or path.name in ("", ".", ".."):
        what = f"it lies outside of the cache folder ({root})"
        raise UsageError("CACHE-OUTSIDE", what, file=path, mend="delete it yourself")


def _locks(path: Path) -> Iterator[Path]:
    """The locks that a process holds which builds, trains or fills an entry, as far as there are any."""
    beside = [path.with_name(f".{path.name}.lock"), path.with_name(f"{path.name}.lock")]
    inside = [] if path.is_symlink() else [path / ".lock", *sorted((path / ".claims").glob("*.lock"))]
    yield from (lock for lock in (*beside, *inside) if lock.is_file() and not lock.is_symlink())


def _denied(path: Path, error: OSError) -> UsageError:
    return UsageError(
        "CACHE", f"it can't be deleted ({error.strerror})", file=path, mend="change its permissions"
    )
