"""Where the user's cache lies."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from llmfw.core.errors import UsageError

MARKS = ".llmfw"
"""Folder in the root with an empty file for each kind whose folder we made: the others aren't ours."""


def cache_root() -> Path:
    """The folder of all cached things: ``$LLMFW_CACHE``, else ``$XDG_CACHE_HOME/llmfw``, else
    ``~/.cache/llmfw``. It needn't exist.
    """
    own, xdg = os.environ.get("LLMFW_CACHE"), os.environ.get("XDG_CACHE_HOME")
    root = Path(own) if own else (Path(xdg) if xdg else Path.home() / ".cache") / "llmfw"
    return root.expanduser().absolute()


def cache_dir(kind: str) -> Path:
    """The folder for one kind of cached thing (``models``, ``tokens``, ``verdicts`` ...), made if absent.

    It lies in ``cache_root()``.

    Raises:
        UsageError: the folder can't be made or written.
    """
    root = cache_root()
    folder = root / kind
    try:
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        if made:
            (root / MARKS).mkdir(exist_ok=True)
            (root / MARKS / kind).touch()
    except OSError as error:
        raise unwritable(folder, error) from error
    return folder


def is_ours(kind: str) -> bool:
    """Whether a folder in the root is one of cached things. Where ``LLMFW_CACHE`` names a folder that holds
    other things too, those that ``cache_dir`` didn't make aren't.
    """
    root = cache_root()
    return not os.environ.get("LLMFW_CACHE") or (root / MARKS / kind).is_file()


def mark_used(path: Path) -> None:
    """Note that a cached thing was used just now; ``llmfw cache rm --unused-for`` goes by it."""
    with contextlib.suppress(OSError):  # others' caches may be read-only
        os.utime(path)


def unwritable(folder: Path, error: OSError) -> UsageError:
    """The error for a cache folder that can't be written."""
    return UsageError(
        "CACHE",
        f"the cache folder can't be written ({error.strerror})",
        file=folder,
        mend="set LLMFW_CACHE to a folder that can be written",
    )
