"""Where the user's cache lies."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from llmfw.core.errors import UsageError


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
    folder = cache_root() / kind
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    return folder


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
