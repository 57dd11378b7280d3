"""One sandbox from its start to its end: a job goes in, what became of it comes out."""

from __future__ import annotations

import ast
import marshal
import os
import selectors
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
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
    """What became of a job. ``trouble``: why the sandbox itself failed, empty where it didn't; ``broken``:
    how a program ended its own sandbox.
    """

    ends: Sequence[End] = ()
    stdout: bytes = b""
    stderr: bytes = b""
    heard: bytes = b""
    overflow: bool = False
    outputs: Mapping[str, bytes] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    trouble: str = ""
    broken: str = ""


Start = Callable[..., "subprocess.Popen[bytes]"]
"""Begins a sandbox around the supervisor: ``start(control, report, disk, pass_fds)``."""


@cache
def supervisor(python: str) -> bytes:
    """The program that runs inside, compiled by the Python that runs it.

    Raises:
        OSError, subprocess.CalledProcessError: that can't be done.
    """
    text = (Path(__file__).parent / "supervisor.py").read_bytes()
    return subprocess.run(
        [python, "-I", "-S", "-c", _COMPILE], input=text, capture_output=True, check=True
    ).stdout


_COMPILE = """
import importlib._bootstrap_external as external, sys
code = compile(sys.stdin.buffer.read(), "supervisor.py", "exec", dont_inherit=True)
sys.stdout.buffer.write(external._code_to_timestamp_pyc(code, 0, 0))
"""


def carry_out(
    start: Start,
    job: Job,
    *,
    cwd: str,
    landlock: bool = False,
    captured: bool = False,
    unconfined: bool = False,
    beside: int = 1,
    uid: int = -1,
) -> Outcome:
    """Run a job to its end. Nothing of it is alive, and no descriptor is open, when this returns.

    Args:
        captured: only two pipes cross the wall; the supervisor keeps what the commands read and write.
        unconfined: nothing holds the commands.
        beside: processes of the sandbox itself that the kernel counts with theirs.
        uid: the user that the commands become, where the supervisor is another; -1: the same.
    """
    with _Pipes() as pipes:
        control_in, control = pipes.pair()
        report, report_out = pipes.pair()
        sinks, sends, stdio = {report: _Sink(_OUTPUTS)}, dict[int, bytes](), list[int]()
        names: dict[str, int] = {}
        if not captured:
            given, stdin = pipes.pair()
            names["stdout"], stdout_in = pipes.pair()
            names["stderr"], stderr_in = pipes.pair()
            stdio += [given, stdout_in, stderr_in]
            sends[stdin] = job.stdin
            if job.heard is not None:
                names["heard"], heard_in = pipes.pair()
                told_out, told = pipes.pair()
                stdio += [heard_in, told_out]
                sends[told] = job.said
            limits = {"heard": job.heard or 0}
            sinks |= {fd: _Sink(limits.get(name, job.output)) for name, fd in names.items()}
        theirs = [*stdio, *job.channels]
        disk = max(command.limits.disk for command in job.commands)
        process = start(
            control=control_in, report=report_out, disk=disk, pass_fds=(control_in, report_out, *theirs)
        )
        try:
            pipes.close(control_in, report_out, *stdio)
            sends[control] = _frame(
                job,
                theirs,
                cwd=cwd,
                landlock=landlock,
                captured=captured,
                unconfined=unconfined,
                beside=beside,
                uid=uid,
            )
            allowed = sum(command.limits.wall_seconds for command in job.commands) + _GRACE
            trouble = _attend(process, pipes, sinks, sends, control, allowed, quiet={report})
        finally:
            _end(process)
        assert process.stderr is not None
        with process.stderr as told_by_wall:
            words = told_by_wall.read(4096).decode("utf-8", "replace").strip()
    outcome = _told(sinks[report].data, trouble or words)
    if not captured:
        texts: dict[str, Any] = {name: bytes(sinks[fd].data) for name, fd in names.items()}
        overflow = any(sinks[fd].full for fd in names.values())
        outcome = replace(outcome, overflow=overflow, **texts)
    else:
        outcome = _cut(outcome, job)
    return replace(outcome, trouble="" if outcome.ends or outcome.overflow else outcome.trouble)


def _cut(outcome: Outcome, job: Job) -> Outcome:
    """What was captured, up to its limits."""
    limits = {"stdout": job.output, "stderr": job.output, "heard": job.heard or 0}
    texts: dict[str, Any] = {name: getattr(outcome, name) for name in limits}
    over = any(len(text) > limits[name] for name, text in texts.items())
    cut = {name: text[: limits[name]] for name, text in texts.items()}
    return replace(outcome, overflow=over, **cut)


def _frame(
    job: Job,
    stdio: Sequence[int],
    *,
    cwd: str,
    landlock: bool,
    captured: bool,
    unconfined: bool,
    beside: int,
    uid: int,
) -> bytes:
    called = job.heard is not None
    asked = {
        "stdin": len(job.stdin), "output": job.output, "said": len(job.said) if called else None,
        "heard": job.heard,
    }  # fmt: skip
    told = {
        "commands": [command.told() for command in job.commands], "cwd": cwd,
        "files": [[path, len(data), mode] for path, (data, mode) in job.files.items()],
        "outputs": list(job.outputs), "output_bytes": _OUTPUTS - (1 << 24), "landlock": landlock,
        "stdio": list(stdio), "captured": asked if captured else None, "unconfined": unconfined,
        "beside": beside, "uid": uid,
    }  # fmt: skip
    text = marshal.dumps(told)
    texts = (job.stdin, job.said if called else b"") if captured else ()
    return b"".join((struct.pack("<Q", len(text)), text, *(data for data, _ in job.files.values()), *texts))


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
    told = ast.literal_eval(data[8 : 8 + size].decode())
    at, outputs, refused = 8 + size, dict[str, bytes](), dict[str, str]()
    for path, count in told["outputs"]:
        if isinstance(count, int):
            outputs[path] = data[at : at + count]
            at += count
        else:
            refused[path] = count
    texts = dict[str, Any]()
    for name, count in zip(("stdout", "stderr", "heard"), told["captured"]):
        texts[name] = data[at : at + count]
        at += count
    ends = [End(**end) for end in told["ends"]]
    return Outcome(ends=ends, outputs=outputs, refused=refused, **texts)


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
