"""Files that are either old or new, never half, and that a power loss doesn't take back."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

UNFINISHED = ".tmp"
"""Ends the name of a file that is being written: hidden, beside its target, which its name has too."""


def flush(path: Path) -> None:
    """Have the operating system write a file or folder through to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_below(folder: Path) -> None:
    """Flush every file and folder below ``folder``, and itself."""
    for path in [*folder.rglob("*"), folder]:
        flush(path)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of ``path`` when the block ends well, and vanishes when it doesn't: staged
    beside it, flushed, renamed, and the rename flushed.

    Raises:
        OSError: from the system, with ``path`` as it was.
    """
    handle, staged = tempfile.mkstemp(prefix=f".{path.name}.", suffix=UNFINISHED, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(staged, 0o644)
        os.replace(staged, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(staged)
        raise
    flush(path.parent)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file as ``replacing`` does."""
    with replacing(path) as file:
        file.write(content)
