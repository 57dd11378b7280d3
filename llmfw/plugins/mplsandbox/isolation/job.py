"""What goes into a sandbox, what comes out, and how both are written down."""

from __future__ import annotations

import ast
import marshal
import struct
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ..records import Limits

OUTPUTS = 256 << 20
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

    @property
    def disk(self) -> int:
        """MiB of each file system that it may write."""
        return max(command.limits.disk for command in self.commands)

    def framed(self, stdio: Sequence[int], *, captured: bool, **settings: Any) -> bytes:
        """As the supervisor reads it: lengths and a description, then the bytes.

        Args:
            stdio: descriptors of the commands' 0, 1, 2 and so on.
            captured: what the commands read goes along.
            settings: what the supervisor must know of its wall.
        """
        called = self.heard is not None
        asked = {
            "stdin": len(self.stdin), "output": self.output, "said": len(self.said) if called else None,
            "heard": self.heard,
        }  # fmt: skip
        told = {
            "commands": [command.told() for command in self.commands],
            "files": [[path, len(data), mode] for path, (data, mode) in self.files.items()],
            "outputs": list(self.outputs), "output_bytes": OUTPUTS - (1 << 24), "stdio": list(stdio),
            "captured": asked if captured else None, **settings,
        }  # fmt: skip
        text = marshal.dumps(told)
        texts = (self.stdin, self.said if called else b"") if captured else ()
        files = (data for data, _ in self.files.values())
        return b"".join((struct.pack("<Q", len(text)), text, *files, *texts))


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


def read_report(report: bytes | bytearray, trouble: str) -> Outcome:
    """What the supervisor reported; ``trouble`` where it didn't."""
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
