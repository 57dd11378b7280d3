"""Ways to hold a program, and which of them a level asks for. Nothing steps down in silence."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from llmfw import LlmfwError

from ..languages import which
from ..records import Isolation, Level
from . import bubblewrap
from .job import Command, Job, Outcome, carry_out, supervisor_text
from .seccomp import filter_program

FIRST_UID = 61184
"""From here on users that no system hands out; each sandbox of a process run as root has its own."""
_UIDS = 4096
_turns = itertools.count()
PHRASE = "run untrusted code without a sandbox"
"""What must be typed before anything runs unconfined."""


class SandboxUnavailable(LlmfwError):
    """This machine can't hold programs as the level asks (exit code 8)."""

    exit_code = 8


@dataclass(frozen=True, kw_only=True)
class Backend:
    """One way to hold programs, with what it turned out to have on this machine."""

    isolation: Isolation
    python: str
    start: Callable[..., subprocess.Popen[bytes]]
    landlock: bool
    cwd: str = bubblewrap.WORK

    def run(self, job: Job) -> Outcome:
        """Carry a job out."""
        return carry_out(self.start, job, cwd=self.cwd, landlock=self.landlock)


def _memory_file(data: bytes) -> int:
    fd = os.memfd_create("llmfw", 0)
    with open(fd, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def start_bubblewrap(
    *,
    control: int,
    report: int,
    disk: int,
    pass_fds: Sequence[int],
    bwrap: str,
    python: str,
    seccomp: bool,
    disable_userns: bool,
    binds: Sequence[str] = (),
) -> subprocess.Popen[bytes]:
    """A bubblewrap around the supervisor, as a user that owns nothing where we are root."""
    rules = filter_program() if seccomp else None
    files = [_memory_file(supervisor_text()), _memory_file(bubblewrap.PASSWD)]
    files += [] if rules is None else [_memory_file(rules)]
    words = bubblewrap.command(
        [python, "-I", "-S", "-B", "/supervisor.py", str(control), str(report)],
        bwrap=bwrap, disk=disk, supervisor=files[0], passwd=files[1],
        seccomp=None if rules is None else files[2], disable_userns=disable_userns, binds=binds,
    )  # fmt: skip
    try:
        return _begin(words, (*files, *pass_fds))
    finally:
        for fd in files:
            os.close(fd)


def _begin(words: Sequence[str], pass_fds: Sequence[int]) -> subprocess.Popen[bytes]:
    if os.geteuid() == 0:
        uid = FIRST_UID + (os.getpid() * 31 + next(_turns)) % _UIDS
        words = [which("setpriv") or "setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *words]
    return subprocess.Popen(
        words, pass_fds=pass_fds, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin"}, cwd="/", start_new_session=True,
    )  # fmt: skip


def backend(level: Level, *, binds: Sequence[str] = (), phrase: str = "") -> Backend:
    """The backend of a level.

    Args:
        phrase: ``PHRASE``, for level ``unsafe``.

    Raises:
        SandboxUnavailable: SANDBOX, naming the missing feature; SANDBOX-UNSAFE, nobody typed the phrase.
    """
    if level == "unsafe":
        return _unsafe(phrase)
    found, why = _probe(tuple(binds), level)
    if found is None:
        raise SandboxUnavailable("SANDBOX", f"level {level} can't be had here: {why[0]}", mend=why[1])
    return found


def _unsafe(phrase: str) -> Backend:
    raise NotImplementedError


@cache
def _probe(binds: tuple[str, ...], level: Level) -> tuple[Backend | None, tuple[str, str]]:
    """What this machine has, found by starting a sandbox; once a process."""
    bwrap, python = which("bwrap"), which("python3")
    if bwrap is None:
        return None, ("bubblewrap isn't installed", "apt-get install bubblewrap")
    if python is None:
        return None, ("there's no python3 in /usr/bin for the supervisor", "apt-get install python3")
    if filter_program() is None:
        return None, ("no seccomp filter is known for this processor", "use level=paranoid")
    outcome = Outcome(trouble="not tried")
    for userns in (True, False):  # before bubblewrap 0.8 the filter alone forbids new user namespaces

        def start(userns: bool = userns, **given: Any) -> subprocess.Popen[bytes]:
            return start_bubblewrap(
                **given, bwrap=bwrap, python=python, seccomp=True, disable_userns=userns, binds=binds
            )

        from ..records import Limits

        look = Command(argv=[which("true") or "/bin/true"], env={}, limits=Limits(seconds=5))
        outcome = carry_out(start, Job(commands=[look]), cwd=bubblewrap.WORK, landlock=True)
        if not outcome.trouble and outcome.ends[0].status == 0:
            have = ["user, pid, net, mount, ipc, uts, cgroup namespaces", "no capabilities", "seccomp"]
            have += ["no new user namespaces"] + (["landlock"] if outcome.ends[0].landlock else [])
            have += ["read-only toolchains", "sized tmpfs", "rlimits", "total memory", "own user"]
            missing = () if outcome.ends[0].landlock else ("landlock",)
            isolation = Isolation(level=level, backend="bubblewrap", features=tuple(have), missing=missing)
            return Backend(isolation=isolation, python=python, start=start, landlock=True), ("", "")
    return None, (
        f"bubblewrap fails: {outcome.trouble or 'its program failed'}",
        "allow unprivileged user namespaces",
    )


def describe(isolation: Isolation) -> Mapping[str, Any]:
    """For reports."""
    return {"level": isolation.level, "backend": isolation.backend, "features": list(isolation.features)}
