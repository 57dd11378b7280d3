"""One sandbox from its start to its end: a job goes in, what became of it comes out."""

from __future__ import annotations

import json
import os
import selectors
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ..records import Limits

_CHUNK = 1 << 16
_GRACE = 5.0
"""Seconds that a sandbox may take to begin and to end, beyond what its commands may take."""
_OUTPUTS = 256 << 20
"""Bytes of files that come back from a job at most."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A program in the sandbox with its limits; ``address``: MiB of address space a process, 0: any;
    ``quiet``: what it says is kept only where it fails.
    """

    argv: Sequence[str]
    env: Mapping[str, str]
    limits: Limits
    builtin: str = ""
    address: int = 0
    quiet: bool = False

    def told(self) -> dict[str, Any]:
        """As the supervisor reads it."""
        limits = {
            "seconds": self.limits.seconds, "wall": self.limits.wall_seconds, "memory": self.limits.memory,
            "processes": self.limits.processes, "disk": self.limits.disk, "files": self.limits.files,
            "address": self.address,
        }  # fmt: skip
        return {
            "argv": list(self.argv), "env": dict(self.env), "limits": limits, "builtin": self.builtin,
            "quiet": self.quiet,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Job:
    """Commands that run one after another in one sandbox, until one fails.

    Attributes:
        files: relative path -> content and mode.
        outputs: files that are brought back; ``*.END`` stands for all of the working folder.
        stdin: what the commands read.
        channels: descriptors that become 3, 4 ... of the commands.
        heard: bytes kept of a channel 3 that the job opens for writing itself; None: no such channel.
        said: bytes that a channel 4 gives to read; with ``heard`` only.
    """

    commands: Sequence[Command]
    files: Mapping[str, tuple[bytes, int]] = field(default_factory=dict)
    outputs: Sequence[str] = ()
    stdin: bytes = b""
    output: int = 65536
    channels: Sequence[int] = ()
    heard: int | None = None
    said: bytes = b""


@dataclass(frozen=True, kw_only=True)
class End:
    """What became of one command; ``why``: the limit that ended it."""

    status: int
    why: str
    wall: float
    cpu: float
    memory: float
    largest: float
    tasks: int
    started: bool
    landlock: bool


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a job. ``trouble``: why the sandbox itself failed, empty where it didn't."""

    ends: Sequence[End] = ()
    stdout: bytes = b""
    stderr: bytes = b""
    heard: bytes = b""
    overflow: bool = False
    outputs: Mapping[str, bytes] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    trouble: str = ""


Start = Callable[..., "subprocess.Popen[bytes]"]
"""Begins a sandbox around the supervisor: ``start(control, report, disk, pass_fds)``."""


@cache
def supervisor_text() -> bytes:
    """The program that runs inside."""
    return (Path(__file__).parent / "supervisor.py").read_bytes()


def carry_out(start: Start, job: Job, *, cwd: str, landlock: bool) -> Outcome:
    """Run a job to its end. Nothing of it is alive, and no descriptor is open, when this returns."""
    with _Pipes() as pipes:
        control_in, control = pipes.pair()
        report, report_out = pipes.pair()
        given, stdin = pipes.pair()
        stdout, stdout_in = pipes.pair()
        stderr, stderr_in = pipes.pair()
        theirs = [given, stdout_in, stderr_in]
        ours = {stdout: _Sink(job.output), stderr: _Sink(job.output), report: _Sink(_OUTPUTS)}
        sends = {stdin: job.stdin}
        heard = -1
        if job.heard is not None:
            heard, heard_in = pipes.pair()
            told_out, told = pipes.pair()
            theirs += [heard_in, told_out]
            ours[heard], sends[told] = _Sink(job.heard), job.said
        stdio = [*theirs, *job.channels]
        disk = max(command.limits.disk for command in job.commands)
        process = start(
            control=control_in, report=report_out, disk=disk, pass_fds=(control_in, report_out, *stdio)
        )
        try:
            pipes.close(control_in, report_out, *theirs)
            sends[control] = _frame(job, stdio, cwd=cwd, landlock=landlock)
            allowed = sum(command.limits.wall_seconds for command in job.commands) + _GRACE
            trouble = _attend(process, pipes, ours, sends, control, allowed, quiet={report})
        finally:
            _end(process)
        words = process.stderr.read(4096).decode("utf-8", "replace").strip() if process.stderr else ""
    outcome = _told(ours[report].data, trouble or words)
    overflow = any(sink.full for fd, sink in ours.items() if fd != report)
    return Outcome(
        ends=outcome.ends, stdout=bytes(ours[stdout].data), stderr=bytes(ours[stderr].data),
        heard=bytes(ours[heard].data) if heard >= 0 else b"", overflow=overflow, outputs=outcome.outputs,
        refused=outcome.refused, trouble="" if outcome.ends or overflow else outcome.trouble,
    )  # fmt: skip


def _frame(job: Job, stdio: Sequence[int], *, cwd: str, landlock: bool) -> bytes:
    told = {
        "commands": [command.told() for command in job.commands], "cwd": cwd,
        "files": [[path, len(data), mode] for path, (data, mode) in job.files.items()],
        "outputs": list(job.outputs), "output_bytes": _OUTPUTS - (1 << 20), "landlock": landlock,
        "stdio": list(stdio),
    }  # fmt: skip
    text = json.dumps(told).encode()
    return b"".join((struct.pack("<Q", len(text)), text, *(data for data, _ in job.files.values())))


def _attend(
    process: subprocess.Popen[bytes],
    pipes: _Pipes,
    sinks: Mapping[int, _Sink],
    sends: Mapping[int, bytes],
    control: int,
    allowed: float,
    quiet: set[int],
) -> str:
    """Feed and drain a sandbox until its report has ended. -> What went wrong with it."""
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
                pipes.close(fd)
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
                    if sinks[fd].full and fd not in quiet and not stopped:
                        stopped, until = True, min(until, time.monotonic() + _GRACE)
                        _stop(process, control, left)
                elif not _give(fd, left):
                    selector.unregister(fd)
                    if fd != control:  # its end tells the supervisor that nobody waits any more
                        pipes.close(fd)
    return ""


def _give(fd: int, left: dict[int, memoryview]) -> bool:
    """Write what fits; -> whether there is more."""
    try:
        left[fd] = left[fd][os.write(fd, left[fd][: 1 << 20]) :]
    except BlockingIOError:
        return True
    except BrokenPipeError:
        return False
    return bool(left[fd])


def _stop(process: subprocess.Popen[bytes], control: int, left: Mapping[int, memoryview]) -> None:
    """Ask the supervisor to end its programs; one that hasn't its whole job yet is ended at once."""
    if left[control]:
        process.kill()
        return
    with suppress(BrokenPipeError, BlockingIOError):
        os.write(control, b"x")


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _told(report: bytes | bytearray, trouble: str) -> Outcome:
    """What the supervisor reported."""
    data = bytes(report)
    if len(data) < 8 or len(data) < 8 + (size := struct.unpack("<Q", data[:8])[0]):
        return Outcome(trouble=trouble or "the sandbox ended without a report")
    told = json.loads(data[8 : 8 + size])
    at, outputs, refused = 8 + size, dict[str, bytes](), dict[str, str]()
    for path, count in told["outputs"]:
        if isinstance(count, int):
            outputs[path] = data[at : at + count]
            at += count
        else:
            refused[path] = count
    return Outcome(ends=[End(**end) for end in told["ends"]], outputs=outputs, refused=refused)


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
        """Close these, once."""
        for fd in fds:
            if fd in self._open:
                self._open.discard(fd)
                os.close(fd)

    def __enter__(self) -> _Pipes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close(*list(self._open))
