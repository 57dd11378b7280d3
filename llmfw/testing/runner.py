"""The command line as tests call it, in this process or in one of its own, and what came of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

_RUN = re.compile(r"^run (.+?)   plan [0-9a-f]+$", re.MULTILINE)
_ERROR = re.compile(r"^error\[([A-Z0-9-]+)\] ?(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class CliResult:
    """What a command line did."""

    words: tuple[str, ...]
    exit_code: int
    output: str
    """Standard output."""
    messages: str
    """Standard error."""
    folder: Path
    """Where it ran."""

    @cached_property
    def run(self) -> Path | None:
        """The folder of the run that it made or went on with; None: none."""
        found = _RUN.search(self.messages)
        return self.folder / found[1] if found else None

    @cached_property
    def losses(self) -> list[float]:
        """The training loss of every step of the run, also of one that failed; empty: no run, or no step."""
        return self.series("loss")

    def series(self, name: str) -> list[float]:
        """The values of a metric of the run (``validation/loss`` ...), in the order of steps."""
        from llmfw.core.tracking import read_journal

        if self.run is None:
            return []
        points = read_journal(self.run / "journal.jsonl").series.get(name, [])
        return [value for _, value in points]

    @cached_property
    def plan(self) -> Mapping[str, Any]:
        """The plan, as json holds it: of the run, or what ``llmfw plan --json`` printed."""
        text = (self.run / "plan.json").read_text(encoding="utf-8") if self.run else self.output
        found: dict[str, Any] = json.loads(text)
        return found

    @cached_property
    def artifacts(self) -> Mapping[str, Path]:
        """Every file of the run's folder by its name in there, ``final/model.safetensors`` for one."""
        if self.run is None:
            return {}
        files = sorted(path for path in self.run.rglob("*") if path.is_file())
        return {path.relative_to(self.run).as_posix(): path for path in files}

    @property
    def error(self) -> str | None:
        """The line of the error, ``error[CODE] ...``; None: there was none."""
        found = _ERROR.search(self.messages)
        return found[0] if found else None

    def assert_ok(self) -> CliResult:
        """Fail, with what was said, unless it ended well; gives itself."""
        assert self.exit_code == 0, f"exit code {self.exit_code} of {self}\n{self.messages}"
        return self

    def assert_failed(self, match: str = "", *, code: str | int | None = None) -> CliResult:
        """Fail unless it ended with one line of error; gives itself.

        Args:
            match: a regular expression to be found in that line.
            code: of the error (``"CONFIG-KEY"``), or the exit code.
        """
        assert self.exit_code != 0, f"{self} ended well"
        assert self.error is not None, (
            f"exit code {self.exit_code} of {self} without an error\n{self.messages}"
        )
        assert re.search(match, self.error), f"{match!r} isn't in: {self.error}"
        if isinstance(code, int):
            assert self.exit_code == code, f"exit code {self.exit_code}, not {code}: {self.error}"
        elif code is not None:
            assert self.error.startswith(f"error[{code}]"), self.error
        return self

    def __str__(self) -> str:
        return f"llmfw {' '.join(self.words)}"


@dataclass(frozen=True)
class Runner:
    """Runs ``llmfw`` in a folder. ``settings`` stand behind the words of every verb that takes settings,
    unless their keys are among the words.
    """

    folder: Path
    settings: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables for ``process``, beside this process's own."""

    def __call__(self, *words: str) -> CliResult:
        """``llmfw WORDS`` in this process: quick, and the debugger sees it."""
        from llmfw.cli import run

        words = self._with_settings(words)
        out, messages = StringIO(), StringIO()
        with chdir(self.folder), redirect_stdout(out), redirect_stderr(messages):
            code = run(words)
        return CliResult(words, code, out.getvalue(), messages.getvalue(), self.folder)

    def process(self, *words: str, timeout: float | None = 300) -> CliResult:
        """The same in a process of its own: what a user meets, imports and exit included."""
        words = self._with_settings(words)
        done = subprocess.run(
            [sys.executable, "-m", "llmfw", *words], cwd=self.folder, env={**os.environ, **self.environment},
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        return CliResult(words, done.returncode, done.stdout, done.stderr, self.folder)

    def _with_settings(self, words: tuple[str, ...]) -> tuple[str, ...]:
        import click

        from llmfw.cli import cli
        from llmfw.core.errors import LlmfwError

        verb: click.Command | None = cli
        try:
            for word in words[:2]:  # a verb, or a verb of a group of them
                if not isinstance(verb, click.Group):
                    break
                verb = verb.get_command(click.Context(verb), word)
        except LlmfwError:
            verb = None
        if verb is None or not any(parameter.name == "overrides" for parameter in verb.params):
            return words
        given = {word.partition("=")[0] for word in words}
        return (*words, *(word for word in self.settings if word.partition("=")[0] not in given))
