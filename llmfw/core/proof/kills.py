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
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from llmfw.core.checkpoint import checkpoints
from llmfw.core.tracking import read_journal

_LOOK = 0.005
"""Seconds between two looks at a journal."""


@dataclass(frozen=True, kw_only=True)
class Kill:
    """SIGKILL once ``step`` optimizer steps are done (0: while the process starts), and a share of the time
    from there to the end of the next one has passed, 0 to 1. Steps are counted through all rounds.
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
    gaps: Sequence[float] = ()
    """From the end of each step to the end of the next one, or of the command."""

    def after(self, step: int) -> float:
        """How long what comes after the end of ``step`` takes; 0: from the command on."""
        return self.gaps[step - 1] if 0 < step <= len(self.gaps) else self.start


def pace_of(run: Path, launched: float, ended: float) -> Pace:
    """The pace of a finished run; seconds since 1970."""
    walls = [event.wall for one in journals(run) for event in read_journal(one).of("consumed")]
    ends = [*walls, ended]
    gaps = tuple(max(0.0, after - before) for before, after in pairwise(ends))
    return Pace(start=max(0.0, ends[0] - launched), gaps=gaps)


def journals(run: Path) -> list[Path]:
    """Journals in which a run's steps are written down: its own, or those of its rounds, in order."""
    rounds = sorted((run / "rounds").glob("*/journal.jsonl"))
    return rounds or [run / "journal.jsonl"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a journal stood when a process was launched: its bytes, and the step from which it goes on."""

    size: int = 0
    step: int = 0


@dataclass(frozen=True, kw_only=True)
class Target:
    """The run that is to be killed, as one process works on it."""

    run: Path
    begun: Mapping[Path, Place] = field(default_factory=dict)

    @property
    def resumes(self) -> int:
        """The step from which the process goes on."""
        return sum(place.step for place in self.begun.values())

    def steps(self) -> int:
        """The steps that are done and needn't be done again, or were done by this process."""
        told = [(one, self.begun.get(one, Place())) for one in journals(self.run)]
        return sum(_last(one, place.size) or place.step for one, place in told)


def target_of(run: Path) -> Target:
    """The run as it stands."""
    begun = {one: Place(size=one.stat().st_size, step=_kept(one)) for one in journals(run) if one.exists()}
    return Target(run=run, begun=begun)


def _kept(journal: Path) -> int:
    """The last step that needn't be done again."""
    if (journal.parent / "done.json").exists():
        return _last(journal)
    return next((manifest.step for _, manifest in checkpoints(journal.parent / "checkpoints")), 0)


def _last(journal: Path, since: int = 0) -> int:
    """The last optimizer step written down behind so many bytes; 0: none."""
    try:
        with journal.open("rb") as file:
            file.seek(since)
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return 0
    last = next((line for line in reversed(lines) if line.startswith(b'{"t":"consumed"')), None)
    return 0 if last is None else int(json.loads(last)["step"])


def kill_in_time(kill: Kill, pace: Pace, target: Target, process: Victim) -> bool:
    """Wait for the moment, then kill; False where the process had ended before.

    A step that the process needn't do again (it goes on behind it) stands for its start.
    """
    while kill.step > target.resumes and target.steps() < kill.step:
        if process.ended():
            return False
        time.sleep(_LOOK)
    until = time.monotonic() + kill.share * pace.after(kill.step if kill.step > target.resumes else 0)
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
    target: Target | None = None,
    kill: Kill | None = None,
    pace: Pace | None = None,
) -> int:
    """Run a command, and kill it in time where a kill is given; gives the exit code as ``Victim.wait``."""
    process = Victim(command, log=log, env=env)
    try:
        if kill is not None and pace is not None and target is not None:
            kill_in_time(kill, pace, target, process)
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
