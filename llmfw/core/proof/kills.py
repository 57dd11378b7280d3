"""Commands that are killed: when, and how it is done."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_LOOK = 0.005
"""Seconds between two looks at a journal."""


@dataclass(frozen=True, kw_only=True)
class Kill:
    """SIGKILL once ``step`` optimizer steps are done (0: while the process starts), and a share of the time
    that a step (a start) takes has passed, 0 to 1.
    """

    step: int
    share: float


def draw(seed: int, count: int, steps: int) -> list[Kill]:
    """Kills at random moments of a run of so many steps, in order; each moment of a run is as likely."""
    chance = random.Random(seed)
    places = sorted(chance.randrange(steps) for _ in range(count))
    return [Kill(step=step, share=chance.random()) for step in places]


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How long an untouched run takes, seconds."""

    start: float
    """From the command to the end of the first step."""
    step: float


@dataclass(frozen=True, kw_only=True)
class Target:
    """The run that is to be killed, as one process works on it."""

    journal: Path
    resumes: int = 0
    """The step from which the process goes on."""

    def steps(self, since: int) -> int:
        """The last optimizer step that was done since the journal had so many bytes; 0: none."""
        try:
            with self.journal.open("rb") as file:
                file.seek(since)
                lines = file.read().split(b"\n")[:-1]
        except OSError:
            return 0
        last = next((line for line in reversed(lines) if line.startswith(b'{"t":"consumed"')), None)
        return 0 if last is None else int(json.loads(last)["step"])

    def size(self) -> int:
        """Bytes of the journal."""
        return self.journal.stat().st_size if self.journal.exists() else 0


def kill_in_time(kill: Kill, pace: Pace, target: Target, since: int, process: Victim) -> bool:
    """Wait for the moment, then kill; False where the process had ended before.

    A step that the process needn't do again (it goes on behind it) stands for its start.

    Args:
        since: the journal's size when the process was launched.
    """
    while kill.step > target.resumes and target.steps(since) < kill.step:
        if process.ended():
            return False
        time.sleep(_LOOK)
    until = time.monotonic() + kill.share * (pace.step if kill.step > target.resumes else pace.start)
    while time.monotonic() < until:
        if process.ended():
            return False
        time.sleep(_LOOK)
    process.kill()
    return True


class Victim:
    """A command in a process group of its own, whose words go to ``log``."""

    def __init__(self, command: Sequence[str], *, log: Path, env: Mapping[str, str]) -> None:
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=dict(env),
                start_new_session=True,
            )

    def ended(self) -> bool:
        """Whether it has."""
        return self._process.poll() is not None

    def kill(self) -> None:
        """SIGKILL to the whole group."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def wait(self) -> int:
        """The exit code, negative: the signal that ended it; nothing of it is left, whatever interrupts."""
        try:
            return self._process.wait()
        except BaseException:
            self.kill()
            self._process.wait()
            raise


def run_command(
    command: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str],
    target: Target,
    kill: Kill | None = None,
    pace: Pace | None = None,
) -> int:
    """Run a command, and kill it in time where a kill is given; gives the exit code as ``Victim.wait``."""
    since = target.size()
    process = Victim(command, log=log, env=env)
    try:
        if kill is not None and pace is not None:
            kill_in_time(kill, pace, target, since, process)
    except BaseException:
        process.kill()
        raise
    finally:
        code = process.wait()
    return code


def last_words(log: Path) -> str:
    """The last line that a command said."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "without a word"
