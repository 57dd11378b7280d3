"""The folder of analysers that don't come with the system: where it is, and how it's filled."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from llmfw import LlmfwError

from ..isolation.filesystem import unreadable
from ..languages import which
from .table import analysers

VARIABLE = "LLMFW_SANDBOX_TOOLS"
_ROOT = Path("/var/lib/llmfw-sandbox-tools")
_SAID = 300


class ToolsError(LlmfwError):
    """The folder of tools can't be filled or can't be read by sandboxes (exit code 2)."""

    exit_code = 2


def tools_folder() -> Path:
    """Where tools are: ``$LLMFW_SANDBOX_TOOLS``, else for root a folder that other users can reach, else the
    user's cache.
    """
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser().absolute()
    if os.geteuid() == 0:
        return _ROOT
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "llmfw" / "sandbox-tools"


def tool_binds(folder: Path | None = None) -> tuple[str, ...]:
    """What ``Sandbox(binds=...)`` takes, so that analysers find the tools; empty where there's no folder.

    Raises:
        ToolsError: TOOLS-UNREADABLE, sandboxes run as another user, who can't reach it.
    """
    place = folder or tools_folder()
    if not place.is_dir():
        return ()
    check_readable(place)
    return (str(place),)


def check_readable(folder: Path) -> None:
    """Raises ToolsError where a sandbox couldn't read a folder."""
    if why := unreadable(folder):
        raise ToolsError(
            "TOOLS-UNREADABLE", why,
            mend=f"set {VARIABLE} to a folder that everybody can read, such as {_ROOT}", key=VARIABLE,
        )  # fmt: skip


def wanted() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Packages of PyPI and of npm that the table names."""
    every = analysers().values()
    return (
        tuple(sorted({one.pypi for one in every if one.pypi})),
        tuple(sorted({one.npm for one in every if one.npm})),
    )


def install_tools(folder: Path | None = None) -> tuple[str, ...]:
    """Fill the folder of tools. -> What was installed, one line a package manager.

    Raises:
        ToolsError: TOOLS-INSTALL, a package manager failed; TOOLS-UNREADABLE, the folder is closed to others.
    """
    place = folder or tools_folder()
    place.mkdir(parents=True, exist_ok=True, mode=0o755)
    check_readable(place)
    pypi, npm = wanted()
    python = which("python3")
    if python is None:
        raise ToolsError("TOOLS-INSTALL", "sandboxes have no python3", mend="apt-get install python3")
    spoken = _run([python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], "python3").strip()
    _run(
        [
            sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--target", str(place),
            "--python-version", spoken, "--only-binary=:all:", *pypi,
        ],
        "pip",
    )  # fmt: skip
    done = [f"pip, for Python {spoken}: {', '.join(pypi)}"]
    manager = which("npm")
    if manager is None:
        done.append(f"npm isn't here: without {', '.join(npm)}")
    else:
        words = [
            manager,
            "install",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            "--prefix",
            str(place),
            *npm,
        ]
        _run(words, "npm")
        done.append(f"npm: {', '.join(npm)}")
    _open(place)
    return tuple(done)


def _run(words: Sequence[str], name: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, umask=0o022)
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[-_SAID:]
        raise ToolsError(
            "TOOLS-INSTALL", f"{name} failed: {said}", mend=f"run {name} by hand and read what it says"
        )
    return done.stdout


def _open(folder: Path) -> None:
    """Let everybody read what an umask may have closed."""
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            one = Path(place, name)
            if not one.is_symlink():
                mode = one.stat().st_mode
                one.chmod(stat.S_IMODE(mode) | 0o044 | (0o011 if mode & 0o100 else 0))
