"""``manifest.json``: what a checkpoint holds, with a SHA-256 of every file and of itself; and which
checkpoint to use.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmfw.core.checkpoint.durable import remove
from llmfw.core.errors import CheckpointError

FORMAT = 1
NAME = "manifest.json"
_OWN_KEYS = ("format", "step", "created", "files", "sha256")
_LARGEST = 16 * 1024 * 1024  # bytes of a manifest; a larger one isn't ours
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")

log = logging.getLogger("llmfw")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a checkpoint says of itself.

    ``files``: name -> (SHA-256 in hex, size in bytes). ``about``: further keys of the same json object that
    the run adds (which model, fingerprint, plugins, surgeries, versions).
    """

    step: int
    files: Mapping[str, tuple[str, int]]
    about: Mapping[str, Any] = field(default_factory=dict)
    created: str = ""

    def to_json(self) -> str:
        """The file's text; its last key is the SHA-256 of the others."""
        body: dict[str, Any] = {
            **self.about,
            "format": FORMAT,
            "step": self.step,
            "created": self.created or time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "files": {
                name: {"sha256": digest, "bytes": size} for name, (digest, size) in sorted(self.files.items())
            },
        }
        return json.dumps({**body, "sha256": _own_digest(body)}, indent=1, ensure_ascii=False) + "\n"


def _own_digest(body: Mapping[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> tuple[str, int]:
    """SHA-256 in hex, and size in bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size


def step_folder(parent: Path, step: int) -> Path:
    """Where the checkpoint after ``step`` optimizer steps lies."""
    return parent / f"step-{step:08d}"


def _damaged(folder: Path, what: str, key: str | None = None) -> CheckpointError:
    return CheckpointError(
        "CHECKPOINT-DAMAGED",
        what,
        mend="delete it, or resume from another checkpoint of the run",
        file=folder,
        key=key,
    )


def read_manifest(folder: Path) -> Manifest:
    """The manifest alone, checked against itself; the other files are not looked at.

    Raises:
        CheckpointError: CHECKPOINT-MISSING, CHECKPOINT-DAMAGED, or CHECKPOINT-FORMAT where a newer llmfw
        wrote it.
    """
    if folder.is_file():
        raise CheckpointError(
            "CHECKPOINT-FORMAT",
            "a file; a checkpoint of llmfw is a folder, and pickles are never read",
            mend=f"name a folder that holds {NAME}",
            file=folder,
        )
    path = folder / NAME
    if not path.is_file():
        raise CheckpointError(
            "CHECKPOINT-MISSING", f"no {NAME} there", mend="name a checkpoint's folder", file=folder
        )
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError("too large")
        body = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(body, dict):
            raise ValueError("not an object")
        if isinstance(body.get("format"), int) and body["format"] > FORMAT:
            raise CheckpointError(
                "CHECKPOINT-FORMAT",
                f"format {body['format']}; this llmfw reads up to {FORMAT}",
                mend="upgrade llmfw",
                file=folder,
            )
        digest = body.pop("sha256", None)
        if digest != _own_digest(body):
            raise ValueError("its checksum doesn't fit")
        files = {name: (str(entry["sha256"]), int(entry["bytes"])) for name, entry in body["files"].items()}
        about = {key: value for key, value in body.items() if key not in _OWN_KEYS}
        manifest = Manifest(step=int(body["step"]), files=files, about=about, created=str(body["created"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        why = f"{type(error).__name__}: {error}{_stranger(path)}"
        raise _damaged(folder, f"{NAME} can't be read ({why})", NAME) from None
    for name in files:
        if not _FILE_NAME.fullmatch(name):
            raise _damaged(folder, f"{NAME} names a file outside the folder", name)
    return manifest


def verify(folder: Path) -> Manifest:
    """The manifest, after every file was compared with it.

    Raises:
        CheckpointError: as ``read_manifest``, or CHECKPOINT-DAMAGED naming the file that differs.
    """
    manifest = read_manifest(folder)
    for name, (digest, size) in manifest.files.items():
        path = folder / name
        if not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
            raise _damaged(folder, "a file is missing", name)
        try:
            found, length = file_digest(path)
        except OSError as error:
            raise _damaged(folder, f"can't be read ({error.strerror})", name) from None
        if length != size:
            raise _damaged(folder, f"{length} bytes where {size} were written{_stranger(path)}", name)
        if found != digest:
            raise _damaged(folder, f"its content differs from what was written{_stranger(path)}", name)
    return manifest


def _stranger(path: Path) -> str:
    """What a file that isn't ours looks like; "" where nothing is known of it."""
    try:
        with path.open("rb") as file:
            begins = file.read(256).lstrip().lower()
    except OSError:
        return ""
    if not begins:
        return ", it's empty"
    if begins.startswith(b"version https://git-lfs"):
        return ", it's a pointer of Git LFS (git lfs pull fetches the file)"
    if begins.startswith((b"<!doctype html", b"<html", b"<?xml")):
        return ", it's a web page"
    return ""


def checkpoints(parent: Path) -> list[tuple[Path, Manifest]]:
    """Checkpoints whose manifest can be read, newest step first; neither names nor times of files count."""
    found = []
    for folder in parent.glob("step-*") if parent.is_dir() else ():
        try:
            found.append((folder, read_manifest(folder)))
        except CheckpointError:
            continue
    return sorted(found, key=lambda item: (item[1].step, item[0].name), reverse=True)


def newest_verified(parent: Path, *, say: Callable[[str], None] = log.warning) -> Path | None:
    """The newest checkpoint that verifies, or None where there is none at all; each one passed over goes to
    ``say``.

    Raises:
        CheckpointError: NO-GOOD-CHECKPOINT, where there are checkpoints and all are damaged.
    """
    problems = []
    readable = [folder for folder, _ in checkpoints(parent)]
    unreadable = sorted(set(parent.glob("step-*")) - set(readable), reverse=True) if parent.is_dir() else []
    for folder in [*unreadable, *readable]:
        try:
            verify(folder)
        except CheckpointError as error:
            problems.append(f"{folder.name}: {error.key + ': ' if error.key else ''}{error.what}")
            continue
        for problem in problems:
            say(f"warning[CHECKPOINT-DAMAGED] {problem}; passed over, using {folder.name}")
        return folder
    if problems:
        raise CheckpointError(
            "NO-GOOD-CHECKPOINT",
            f"every checkpoint is damaged ({'; '.join(problems)})",
            mend="start a new run, or restore the folder from a backup",
            file=parent,
        )
    return None


def prune(parent: Path, keep: int) -> list[Path]:
    """Delete all but the ``keep`` newest whole checkpoints (at least one stays); gives what was deleted.

    A checkpoint with a missing or cut file counts for nothing and stays, for a person to look at.
    """
    whole = [folder for folder, manifest in checkpoints(parent) if _complete(folder, manifest)]
    doomed = whole[max(1, keep) :]
    for folder in doomed:
        remove(folder)
    return doomed


def _complete(folder: Path, manifest: Manifest) -> bool:
    return all(
        (folder / name).is_file() and (folder / name).stat().st_size == size
        for name, (_, size) in manifest.files.items()
    )
