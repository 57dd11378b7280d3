"""What lies in the user's cache, read without any heavy library."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmfw.core.cache.place import cache_root, is_ours
from llmfw.core.cache.words import describe
from llmfw.core.errors import UsageError

TOGETHER = ("hashes",)
"""Kinds of many small files, which are told of and removed as one thing."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One cached thing."""

    kind: str
    name: str
    """Its name in the folder of its kind; ``all`` of a kind that is taken together."""
    paths: tuple[Path, ...]
    """Files, folders or links; more than one where a kind is taken together."""
    about: str
    """What it belongs to."""
    count: int | None
    """Samples, sequences or files in it, as ``about`` counts them; None: it isn't counted."""
    size: int
    """Bytes of its files; what a link leads to isn't counted."""
    used: float
    """Seconds since the epoch, when it was last used or made."""

    @property
    def label(self) -> str:
        """``KIND/NAME``."""
        return f"{self.kind}/{self.name}"


def entries(kind: str | None = None) -> list[Entry]:
    """Everything in the cache, or all of one kind; by kind, the last used first.

    Raises:
        UsageError: CACHE-KIND, where nothing of that kind is there.
    """
    folders = {path.name: path for path in _visible(cache_root()) if path.name not in strangers()}
    if kind is not None and kind not in folders:
        mend = _near(kind, folders) or "see llmfw cache ls"
        raise UsageError("CACHE-KIND", f"nothing of kind {kind!r} is cached", mend=mend)
    found: list[Entry] = []
    for name in sorted(folders) if kind is None else [kind]:
        paths = [path for path in _visible(folders[name]) if not path.name.endswith(".lock")]
        if name in TOGETHER:
            found += [_entry(name, "all", paths)] if paths else []
        else:
            own = [_entry(name, path.name, [path]) for path in paths]
            found += sorted(own, key=lambda entry: (-entry.used, entry.name))
    return found


def strangers() -> dict[str, str]:
    """What lies in the cache's folder and is left alone: name -> why."""
    found: dict[str, str] = {}
    for path in _visible(cache_root()):
        if path.is_symlink():
            found[path.name] = "a link"
        elif not path.is_dir() or not is_ours(path.name):
            found[path.name] = "not made by llmfw"
    return found


def named(words: Sequence[str], among: Sequence[Entry]) -> list[Entry]:
    """The entries that ``words`` mean: names, ``KIND/NAME``, or the beginning of either if only one has it.

    Raises:
        UsageError: CACHE-NAME, a name that means none or several.
    """
    found: dict[str, Entry] = {}
    for word in words:
        exact = [entry for entry in among if word in (entry.name, entry.label)]
        begun = [entry for entry in among if entry.label.startswith(word) or entry.name.startswith(word)]
        chosen = exact or (begun if word else [])
        if len(chosen) != 1:
            raise _unclear(word, chosen, among)
        found[chosen[0].label] = chosen[0]
    return list(found.values())


def _unclear(word: str, chosen: Sequence[Entry], among: Sequence[Entry]) -> UsageError:
    if chosen:
        labels = ", ".join(entry.label for entry in chosen[:6])
        more = f" and {len(chosen) - 6} more" if len(chosen) > 6 else ""
        return UsageError(
            "CACHE-NAME", f"{word!r} means {len(chosen)} cached things", mend=f"name one of {labels}{more}"
        )  # fmt: skip
    names = [name for entry in among for name in (entry.name, entry.label)]
    return UsageError(
        "CACHE-NAME", f"nothing cached is named {word!r}", mend=_near(word, names) or "see llmfw cache ls"
    )  # fmt: skip


def _near(word: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(dict.fromkeys(names)), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else ""


def _entry(kind: str, name: str, paths: Sequence[Path]) -> Entry:
    about, count = describe(kind, list(paths))
    return Entry(
        kind=kind,
        name=name,
        paths=tuple(paths),
        about=about,
        count=count,
        size=sum(map(size_of, paths)),
        used=max(map(_used, paths), default=0.0),
    )


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; links count for nothing, and so does what vanishes
    meanwhile.
    """
    total = 0
    for one in _walk(path):
        with contextlib.suppress(OSError):
            about = one.lstat()
            total += about.st_size if stat.S_ISREG(about.st_mode) else 0
    return total


def _walk(path: Path) -> Iterator[Path]:
    yield path
    if path.is_dir() and not path.is_symlink():
        for folder, _, files in os.walk(path):
            yield from (Path(folder) / name for name in files)


def _used(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


def as_json(entry: Entry) -> dict[str, object]:
    """An entry as json holds it: ``size`` in bytes, ``used`` in ISO 8601 (UTC)."""
    from datetime import UTC, datetime

    used = datetime.fromtimestamp(entry.used, UTC).isoformat(timespec="seconds")
    own = {"kind": entry.kind, "name": entry.name, "about": entry.about, "entries": entry.count}
    return {**own, "size": entry.size, "used": used, "paths": [str(path) for path in entry.paths]}


def read_key(path: Path) -> tuple[dict[str, object], dict[str, object]]:
    """(key, what is told beside it) of a cache of reference log-probs; both empty where it can't be read."""
    try:
        told = json.loads((path / "key.json").read_text(encoding="utf-8"))
        return dict(told["key"]), dict(told["about"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}, {}
