"""What surrounded a run: versions, hardware and the working tree. Never environment variables."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from llmfw.core.tracking.redaction import redact_text

DIFF_CAP = 200_000
"""Largest diff that is kept, bytes."""

_UNTRACKED_CAP = 100
_SECRET_FILES = tuple(
    f":(exclude,glob,icase)**/{name}"
    for name in (".env*", "*.pem", "*.key", "*.p12", "*secret*", "*credential*", ".netrc")
)


def environment(folder: Path | None = None) -> tuple[dict[str, Any], str | None]:
    """(what environment.json holds, diff of ``folder``'s git working tree; None: no git, or no diff)."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "hardware": hardware(),
        "packages": packages(),
    }
    git, diff = working_tree(folder or Path.cwd())
    if git:
        found["git"] = git
    return found, diff


@functools.cache
def packages() -> dict[str, str]:
    """Installed distributions and their versions."""
    found = {
        dist.metadata["Name"]: dist.version for dist in metadata.distributions() if dist.metadata["Name"]
    }
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def hardware() -> dict[str, Any]:
    """Processor, cores, memory in bytes, and GPUs where torch has been imported."""
    import psutil

    found: dict[str, Any] = {
        "machine": platform.machine(),
        "cpu": _cpu_name(),
        "cores": psutil.cpu_count(logical=False) or os.cpu_count(),
        "threads": os.cpu_count(),
        "memory": psutil.virtual_memory().total,
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["gpus"] = [
            {
                "name": torch.cuda.get_device_name(index),
                "memory": torch.cuda.get_device_properties(index).total_memory,
            }
            for index in range(torch.cuda.device_count())
        ]
        found["cuda"] = torch.version.cuda
    return found


def working_tree(folder: Path) -> tuple[dict[str, Any] | None, str | None]:
    """(commit, branch, whether files differ, untracked files; capped diff); (None, None) outside git."""
    commit = git_output(folder, "rev-parse", "HEAD")
    if commit is None:
        return None, None
    # the diff may hold secrets that were never meant for a log: files named like ones stay out, the rest is
    # redacted
    changes = (
        git_output(
            folder,
            "diff",
            "HEAD",
            "--no-ext-diff",
            "--no-textconv",
            "--no-color",
            "--",
            ".",
            *_SECRET_FILES,
            cap=DIFF_CAP + 1,
        )
        or ""
    )
    status = git_output(folder, "status", "--porcelain", "--untracked-files=normal", cap=DIFF_CAP) or ""
    untracked = [line[3:] for line in status.splitlines() if line.startswith("??")]
    cut = len(changes) > DIFF_CAP
    found = {
        "commit": commit.strip(),
        "branch": (git_output(folder, "rev-parse", "--abbrev-ref", "HEAD") or "").strip(),
        "dirty": bool(status.strip()),
        "diff_cut": cut,
        "untracked": untracked[:_UNTRACKED_CAP],
    }
    diff = redact_text(changes[:DIFF_CAP]) + (f"\n[cut after {DIFF_CAP} characters]\n" if cut else "")
    return found, diff or None


def git_output(folder: Path, *arguments: str, cap: int = 4096) -> str | None:
    """At most ``cap`` bytes of git's output; None without git or a repository, or after 10 s."""
    # a repository's own settings may name programs to run; none of them is
    command = ["git", "-c", "core.fsmonitor=false", "-c", "core.pager=cat", "-C", str(folder), *arguments]
    quiet = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=quiet)
    except OSError:
        return None
    late = threading.Timer(10, process.kill)
    late.start()
    with process, _cancelled(late):
        assert process.stdout is not None
        out = process.stdout.read(cap)
        cut = bool(process.stdout.read(1))
        if cut:
            process.kill()
        done = process.wait() == 0
    return out.decode("utf-8", errors="replace") if done or cut else None


@contextmanager
def _cancelled(timer: threading.Timer) -> Iterator[None]:
    """Stop the timer at the end."""
    try:
        yield
    finally:
        timer.cancel()


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()
