"""Folders that appear whole or not at all: staged beside the target, synced, renamed, and the parent synced.

Hidden names in the parent: ``.staging-*`` is being written, ``.pruned-*`` is being deleted, ``.old-NAME``
gives way to a new NAME. ``sweep`` clears what a killed process left.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llmfw.core.disk import flush, flush_below
from llmfw.core.errors import UsageError
from llmfw.core.failpoints import failpoint

_STAGING, _PRUNED, _OLD = ".staging-", ".pruned-", ".old-"


def stage(target: Path) -> Path:
    """A new hidden folder beside ``target``, to be filled and then published under its name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{_STAGING}{target.name}-", dir=target.parent))
    folder.chmod(0o777 & ~_umask())
    return folder


def publish(folder: Path, target: Path) -> None:
    """Flush a staged folder to the disk and give it its name; where that fails, it vanishes.

    Whatever bore the name before is replaced. A process killed at any instant leaves the old folder, the new
    one, or (between two renames) the old one under a hidden name that ``sweep`` gives back.
    """
    try:
        failpoint("ckpt.before_fsync")
        flush_below(folder)
        failpoint("ckpt.before_rename")
        old = target.with_name(_OLD + target.name)
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
            target.rename(old)
        folder.rename(target)
        flush(target.parent)
        failpoint("ckpt.after_rename")
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A folder to write into, which becomes ``target`` when the block ends well, and vanishes otherwise."""
    folder = stage(target)
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    publish(folder, target)


def remove(folder: Path) -> None:
    """Delete a folder so that a half-deleted one never bears its name."""
    hidden = folder.with_name(_PRUNED + folder.name)
    shutil.rmtree(hidden, ignore_errors=True)
    folder.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def sweep(parent: Path) -> list[str]:
    """Clear what killed processes left in ``parent``; gives the names. Call it only while the run's lock is
    held.
    """
    swept = []
    for path in sorted(parent.glob(".*-*")) if parent.is_dir() else ():
        if (
            path.name.startswith(_OLD)
            and not (final := path.with_name(path.name.removeprefix(_OLD))).exists()
        ):
            path.rename(final)
        elif path.name.startswith((_STAGING, _PRUNED, _OLD)):
            shutil.rmtree(path, ignore_errors=True)
        else:
            continue
        swept.append(path.name)
    return swept


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


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
