"""Where an export goes: refused before anything is computed, where it couldn't or mustn't be written."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llmfw.core.errors import LlmfwError, ResourceError, UsageError
from llmfw.core.models.saved_weights import SavedWeights

RECORD = "llmfw-export.json"
"""What an export says of itself; ``overwrite`` replaces only folders that hold it."""
_MARGIN = 32 * 1024 * 1024  # bytes of tokenizer, card and rounding to blocks


def check_target(out: Path, overwrite: bool, found: SavedWeights) -> None:
    """Refuse, before anything is computed, a folder that couldn't or mustn't be written."""

    def wrong(what: str, mend: str) -> UsageError:
        return UsageError("EXPORT-OUT", what, mend=mend, file=out, key="--out")

    if out.exists() and not out.is_dir():
        raise wrong("this is a file", "name a folder")
    for kept in (found.folder, found.run):
        if kept is not None and (out.resolve() == kept.resolve() or out.resolve() in kept.resolve().parents):
            raise wrong("the source itself lies there", "name another folder")
    if found.folder is not None and found.folder.resolve() in out.resolve().parents:
        raise wrong("this is inside the source's folder", "name another folder")
    if out.is_dir() and any(out.iterdir()):
        if not overwrite:
            raise wrong(
                "the folder isn't empty",
                "add --overwrite to replace an earlier export, or name another folder",
            )
        if not (out / RECORD).is_file():
            raise wrong(
                "it holds something else than an export", "name another folder, or empty this one yourself"
            )
    place = out.parent
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise wrong("its folder can't be written to", "name a folder elsewhere, or change the permissions")


def settle_files(place: Path) -> None:
    """Let others read what libraries wrote for their owner alone."""
    mask = os.umask(0o077)
    os.umask(mask)
    for path in place.rglob("*"):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


def check_space(out: Path, need: int) -> None:
    place = out.parent
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < need + _MARGIN:
        raise ResourceError(
            "DISK-FULL",
            f"need {(need + _MARGIN) / 1e6:.0f} MB, {free / 1e6:.0f} MB free",
            mend="free space, or set --out to another disk",
            file=place,
        )


@contextmanager
def disk(out: Path) -> Iterator[None]:
    """One line for a disk that runs full while it's written on."""
    try:
        yield
    except Exception as error:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
        if full and not isinstance(error, LlmfwError):
            raise ResourceError(
                "DISK-FULL", "no space left for the export", file=out.parent,
                mend="free space, or set --out to another disk",
            ) from error  # fmt: skip
        raise
