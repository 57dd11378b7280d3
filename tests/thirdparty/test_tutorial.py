"""docs/write-a-plugin.md, done as it says: its blocks in order, from an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.architecture.conftest import ROOT
from tests.thirdparty.environment import Environment

PAGE = ROOT / "docs" / "write-a-plugin.md"
BLOCK = re.compile(
    r"^<!-- (?P<what>file|run|not run)(?:: (?P<told>[^\n]*?))? -->\n"
    r"(?P<fence>`{3,4})(?P<language>\w+)\n(?P<text>.*?)^(?P=fence)\n"
    r"(?:<!-- shows: (?P<shows>[^\n]*) -->\n)?",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A piece of the page: a file to write (``told``: its name), commands to run, or commands not to run."""

    what: str
    told: str
    text: str
    shows: str


def blocks() -> list[Block]:
    """The page's blocks, in order."""
    text = PAGE.read_text(encoding="utf-8")
    found = [
        Block(match["what"], match["told"] or "", match["text"], match["shows"] or "")
        for match in BLOCK.finditer(text)
    ]
    fences = re.findall(r"^(`{3,4})\w+$", text, re.MULTILINE)
    assert len(found) == len(fences), "a block of the page says neither file, run nor not run"
    return found


def file_named(name: str) -> str:
    """The first text that the page gives for a file."""
    return next(block.text for block in blocks() if block.what == "file" and block.told == name)


def test_a_loss_is_one_file_of_at_most_25_lines_and_one_line_of_toml():
    """Blank lines count."""
    assert file_named("my_margin.py").count("\n") <= 25
    assert max(map(len, file_named("my_margin.py").splitlines())) <= 110
    toml = file_named("pyproject.toml")
    assert toml.count("\n") == 1
    assert tomllib.loads(toml)["project"]["entry-points"] == {
        "llmfw.plugins": {"my_margin": "my_margin:MyMargin"}
    }


def test_what_publishes_is_not_run_and_everything_else_is():
    idle = [block for block in blocks() if block.what == "not run"]
    assert [block.text for block in idle] == ["twine upload dist/*\n"]
    assert sum(block.what == "run" for block in blocks()) >= 6


def programs(environment: Environment) -> Path:
    """The environment's own folder of programs, with those that come from the packages behind it."""
    folder = environment.folder / "bin"
    for name in ("pip", "pytest"):
        (folder / name).write_text(f'#!/bin/sh\nexec "{environment.python}" -m {name} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_pages_blocks_work_one_after_the_other_from_an_empty_folder(clean: Environment, tmp_path: Path):
    """Only what an offline machine needs is added: pip looks for nothing elsewhere, build needs no second
    environment.
    """
    place = tmp_path / "empty"
    place.mkdir()
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "PYTHON"))},
        "PATH": f"{programs(clean)}{os.pathsep}{os.environ['PATH']}",
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # "0" is pip's word for: no isolation
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }
    for block in blocks():
        if block.what == "file":
            assert (place / block.told).parent.is_dir(), f"{block.told}: nothing made its folder"
            (place / block.told).write_text(block.text, encoding="utf-8")
        elif block.what == "run":
            text = block.text.replace("python -m build --wheel", "python -m build --wheel --no-isolation")
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", text],
                cwd=place,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            told = f"{block.text}\n{done.stdout[-5000:]}\n{done.stderr[-3000:]}"
            assert done.returncode == 0, told
            assert block.shows in done.stdout + done.stderr, f"{block.shows!r} isn't shown by\n{told}"
