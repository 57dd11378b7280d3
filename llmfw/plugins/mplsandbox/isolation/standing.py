"""One sandbox from its start to its end: it stands, takes a job, and is gone."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from .job import OUTPUTS, Job, Outcome, read_report

_CHUNK = 1 << 16
_GRACE = 5.0
"""Seconds that a sandbox may take to begin and to end, beyond what its commands may take."""
_NAMES = ("stdout", "stderr", "heard")


@dataclass(frozen=True, kw_only=True)
class Wall:
    """A way to hold programs.

    Attributes:
        start: begins a sandbox around the supervisor: ``start(control, report, disk, pass_fds)``.
        cwd: the commands' folder.
        landlock: whether the supervisor closes the file system once more.
        captured: only two pipes cross the wall; the supervisor keeps what the commands read and write.
        unconfined: nothing holds the commands.
        beside: processes of the sandbox itself that the kernel counts with theirs.
        uid: the user that the commands become, where the supervisor is another; -1: the same.
    """

    start: Callable[..., subprocess.Popen[bytes]]
    cwd: str
    landlock: bool = False
    captured: bool = False
    unconfined: bool = False
    beside: int = 1
    uid: int = -1

    def told(self) -> dict[str, Any]:
        """What the supervisor must know of it."""
        return {
            "cwd": self.cwd, "landlock": self.landlock, "unconfined": self.unconfined,
            "beside": self.beside, "uid": self.uid,
        }  # fmt: skip


def carry_out(wall: Wall, job: Job) -> Outcome:
    """Run a job in a sandbox of its own. Nothing of it is alive, and no descriptor is open, afterwards."""
    return Standing(wall, job.disk, job.channels).carry_out(job)


class Standing:
    """A sandbox whose supervisor waits for a job. It carries out one.

    Args:
        disk: MiB of each file system that the job may write.
        channels: descriptors that the job's commands get besides.
    """

    def __init__(self, wall: Wall, disk: int, channels: Sequence[int] = ()) -> None:
        self._wall, self._channels, self._pipes = wall, tuple(channels), _Pipes()
        pair = self._pipes.pair
        control, self._control = pair()
        self._report, report = pair()
        self._stdio: list[int] = []
        self._heard: dict[str, int] = {}
        self._said: list[int] = []
        if not wall.captured:
            given, stdin = pair()
            (stdout, out), (stderr, err), (heard, value), (call, said) = (pair() for _ in range(4))
            self._stdio, self._said = [given, out, err, value, call], [stdin, said]
            self._heard = dict(zip(_NAMES, (stdout, stderr, heard), strict=True))
        theirs = (control, report, *self._stdio)
        try:
            self._process = wall.start(
                control=control, report=report, disk=disk, pass_fds=(*theirs, *self._channels)
            )
        except BaseException:
            self._pipes.close()
            raise
        self._pipes.close(*theirs)

    @property
    def alive(self) -> bool:
        """Whether it still waits."""
        return self._process.poll() is None

    def close(self) -> None:
        """End it; nothing of it is alive, and no descriptor is open, afterwards."""
        self._end()
        self.forget()

    def forget(self) -> None:
        """Close the descriptors alone: in a forked process, where the sandbox is the parent's."""
        if self._process.stderr is not None:
            self._process.stderr.close()
        self._pipes.close()

    def carry_out(self, job: Job, begun: Callable[[], None] | None = None) -> Outcome:
        """Run a job to its end, and be gone.

        Args:
            begun: called once the sandbox has the job, or as much of it as goes into a pipe at once.
        """
        try:
            return self._carry_out(job, begun or (lambda: None))
        finally:
            self.close()

    def _carry_out(self, job: Job, begun: Callable[[], None]) -> Outcome:
        wall, called = self._wall, job.heard is not None
        limits = {"stdout": job.output, "stderr": job.output, "heard": job.heard or 0}
        names = {name: fd for name, fd in self._heard.items() if called or name != "heard"}
        sinks = {self._report: _Sink(OUTPUTS)} | {fd: _Sink(limits[name]) for name, fd in names.items()}
        stdio = [*(self._stdio if called else self._stdio[:3]), *self._channels]
        sends = {self._control: job.framed(stdio, captured=wall.captured, **wall.told())}
        sends |= dict(zip(self._said, (job.stdin, job.said), strict=False))
        allowed = sum(command.limits.wall_seconds for command in job.commands) + _GRACE
        trouble = self._attend(sinks, sends, allowed, begun)
        assert self._process.stderr is not None
        self._end()
        words = self._process.stderr.read(4096).decode("utf-8", "replace").strip()
        outcome = read_report(sinks[self._report].data, trouble or words)
        if wall.captured:
            outcome = _cut(outcome, limits)
        else:
            texts: dict[str, Any] = {name: bytes(sinks[fd].data) for name, fd in names.items()}
            overflow = any(sinks[fd].full for fd in names.values())
            outcome = replace(outcome, overflow=overflow, **texts)
        return replace(outcome, trouble="" if outcome.ends or outcome.overflow else outcome.trouble)

    def _attend(
        self, sinks: Mapping[int, _Sink], sends: Mapping[int, bytes], allowed: float,
        begun: Callable[[], None],
    ) -> str:  # fmt: skip
        """Feed and drain the sandbox until its report has ended. -> What went wrong with it."""
        until = time.monotonic() + allowed
        left = {fd: memoryview(data) for fd, data in sends.items()}
        with selectors.DefaultSelector() as selector:
            for fd in sinks:
                os.set_blocking(fd, False)
                selector.register(fd, selectors.EVENT_READ)
            for fd, data in sends.items():
                if data:
                    os.set_blocking(fd, False)
                    selector.register(fd, selectors.EVENT_WRITE)
                else:
                    self._pipes.close(fd)
            stopped = False
            while any(fd in selector.get_map() for fd in sinks):
                rest = until - time.monotonic()
                if rest <= 0:
                    return "it didn't end in time"
                for key, _ in selector.select(rest):
                    fd = key.fd
                    if fd in sinks:
                        if not sinks[fd].take(fd):
                            selector.unregister(fd)
                        if sinks[fd].full and fd != self._report and not stopped:
                            stopped, until = True, min(until, time.monotonic() + _GRACE)
                            self._stop(left)
                    elif not _give(fd, left):
                        selector.unregister(fd)
                        if fd == self._control:  # its end would tell the supervisor that nobody waits
                            begun()
                        else:
                            self._pipes.close(fd)
        return ""

    def _stop(self, left: Mapping[int, memoryview]) -> None:
        """Ask the supervisor to end its programs; one that hasn't its whole job yet is ended at once."""
        if left[self._control]:
            self._process.kill()
            return
        with suppress(BrokenPipeError, BlockingIOError):
            os.write(self._control, b"x")

    def _end(self) -> None:
        if self._process.returncode is None:  # once it is reaped its number may be somebody else's
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _give(fd: int, left: dict[int, memoryview]) -> bool:
    """Write what fits; -> whether there is more."""
    try:
        left[fd] = left[fd][os.write(fd, left[fd][: 1 << 20]) :]
    except BlockingIOError:
        return True
    except BrokenPipeError:
        return False
    return bool(left[fd])


def _cut(outcome: Outcome, limits: Mapping[str, int]) -> Outcome:
    """What was captured, up to its limits."""
    texts: dict[str, Any] = {name: getattr(outcome, name) for name in limits}
    over = any(len(text) > limits[name] for name, text in texts.items())
    cut = {name: text[: limits[name]] for name, text in texts.items()}
    return replace(outcome, overflow=over, **cut)


class _Sink:
    """What was read of a descriptor, up to a limit; the rest is thrown away."""

    def __init__(self, limit: int) -> None:
        self.data, self.limit, self.full = bytearray(), limit, False

    def take(self, fd: int) -> bool:
        """Read what there is; False: it has ended."""
        try:
            part = os.read(fd, _CHUNK)
        except BlockingIOError:
            return True
        room = self.limit - len(self.data)
        self.full = self.full or len(part) > room
        self.data += part[:room]
        return bool(part)


class _Pipes:
    """Pipes that are all closed in the end."""

    def __init__(self) -> None:
        self._open: set[int] = set()

    def pair(self) -> tuple[int, int]:
        """Descriptors to read and to write."""
        pair = os.pipe2(os.O_CLOEXEC)
        self._open |= set(pair)
        return pair

    def close(self, *fds: int) -> None:
        """Close these that are open; none named: all."""
        for fd in self._open.intersection(fds or tuple(self._open)):
            self._open.discard(fd)
            os.close(fd)
