"""A clean environment for wheels: packages of its own, and behind them the running one's third parties."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from tests.architecture.conftest import ROOT, tracked


def copy_core(place: Path, *, without: str | None = None) -> Path:
    """llmfw's source as git tracks it, in a folder of its own; ``without`` leaves a built-in plugin out."""
    for file in tracked():
        name = file.relative_to(ROOT)
        if without is not None and name.parts[:3] == ("llmfw", "plugins", without):
            continue
        if name.parts[0] in ("llmfw", "pyproject.toml", "setup.py", "README.md", "LICENSE"):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place / name)
    if without is not None:
        project = place / "pyproject.toml"
        line = re.compile(rf'^{without} = "llmfw\.plugins\.{without}\..*"\n', re.MULTILINE)
        text, removed = line.subn("", project.read_text(encoding="utf-8"))
        assert removed == 1
        project.write_text(text, encoding="utf-8")
    return place


def build_wheel(source: Path, out: Path) -> Path:
    """The source's wheel, built offline with the tools that are installed here."""
    told = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    (wheel,) = out.glob("*.whl")
    return wheel


@contextmanager
def once(place: Path) -> Iterator[bool]:
    """A block that makes ``place``: True for the first of several processes, False once it's made."""
    with FileLock(f"{place}.lock"):
        made = place / ".made"
        yield not made.exists()
        made.touch()


@dataclass(frozen=True)
class Environment:
    """A virtual environment in which nothing is installed but what ``install`` puts there."""

    folder: Path

    @classmethod
    def create(cls, folder: Path) -> Environment:
        """A new one. What the running environment has besides llmfw is found through a .pth file, whose own
        .pth files (those of editable installs) aren't followed.
        """
        venv.create(folder, symlinks=True)
        found = cls(folder)
        outer = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
        found.packages.joinpath("outer.pth").write_text("".join(f"{path}\n" for path in outer))
        return found

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def packages(self) -> Path:
        """Its own site-packages."""
        (found,) = self.folder.glob("lib/python*/site-packages")
        return found

    def install(self, *wheels: Path) -> None:
        """Install wheels alone, offline."""
        told = subprocess.run(
            [
                sys.executable, "-m", "pip", "--python", str(self.python), "install", "--quiet", "--no-index",
                "--no-deps", "--ignore-installed", "--disable-pip-version-check", "--no-compile",
                *map(str, wheels),
            ],
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        assert told.returncode == 0, told.stdout + told.stderr

    def run(self, *words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """A command of the interpreter, e.g. ``-m pytest``."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "COV"))}
        for key in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
            clean.pop(key, None)
        return subprocess.run(
            [str(self.python), *words],
            cwd=cwd,
            env={**clean, "NO_COLOR": "1", "COLUMNS": "200", **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def llmfw(self, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """The command line."""
        return self.run("-m", "llmfw.cli", *words, cwd=cwd)

    def pytest(self, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """The tests below ``cwd`` in one process."""
        return self.run("-m", "pytest", "-q", "-p", "no:cacheprovider", *words, cwd=cwd)
