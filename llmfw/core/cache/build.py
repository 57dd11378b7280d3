"""Building a cached thing: once, under a lock, never half."""

from __future__ import annotations

import errno
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from llmfw.core.cache.place import cache_dir, mark_used, unwritable
from llmfw.core.disk import flush, flush_below
from llmfw.core.errors import ResourceError

_log = logging.getLogger(__name__)
_STAGING = ".staging-"


def locked_build(target: Path, build: Callable[[Path], None]) -> Path:
    """The folder ``target``, built first if it isn't there; of several processes one builds and the others
    wait.

    ``build(folder)`` fills a fresh empty folder beside the target. It's flushed to the disk and renamed, so
    ``target`` either is whole or doesn't exist, also after a power loss; if ``build`` raises, nothing stays
    behind.

    Raises:
        UsageError: the place can't be written.
        ResourceError: the disk is full.
    """
    if target.is_dir():
        mark_used(target)
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target):
            if not target.is_dir():
                _sweep(target)
                _build(target, build)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceError(
                "DISK-FULL",
                f"no space left to build {target.name}",
                file=target.parent,
                mend="free space or set LLMFW_CACHE to another disk",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and _within(error.filename, target.parent):
            raise unwritable(target.parent, error) from error
        raise
    return target


def cached_json(kind: str, key: str, make: Callable[[], Any]) -> Any:
    """What ``make()`` returns, as json keeps it, made once per ``key``; a damaged file is made anew."""
    target = cache_dir(kind) / key

    def build(folder: Path) -> None:
        (folder / "value.json").write_text(json.dumps(make(), ensure_ascii=False), encoding="utf-8")

    for _ in range(2):
        file = locked_build(target, build) / "value.json"
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            shutil.rmtree(target, ignore_errors=True)
    raise ResourceError(
        "CACHE", "the cached file can't be read", file=target, mend="check the disk, or set LLMFW_CACHE"
    )


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _log.warning("another process is building %s; waiting for it", target)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _sweep(target: Path) -> None:
    """Remove what a killed builder left; we hold the lock, so nobody is at work there."""
    for orphan in target.parent.glob(f"{_STAGING}{target.name}-*"):
        shutil.rmtree(orphan, ignore_errors=True)


def _build(target: Path, build: Callable[[Path], None]) -> None:
    staging = Path(tempfile.mkdtemp(prefix=f"{_STAGING}{target.name}-", dir=target.parent))
    try:
        build(staging)
        flush_below(staging)
        staging.chmod(0o755)
        staging.rename(target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    flush(target.parent)


def _within(name: object, folder: Path) -> bool:
    return isinstance(name, (str, Path)) and Path(name).is_relative_to(folder)
