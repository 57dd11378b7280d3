"""Ways to hold a program, and which of them a level asks for. Nothing steps down in silence."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from llmfw import LlmfwError

from ..languages import which
from ..records import Isolation, Level, Limits
from . import bubblewrap, gvisor, unconfined, unshare
from .filesystem import WORK, unreadable
from .job import Command, Job, Outcome
from .seccomp import filter_program
from .spares import Spares
from .standing import Wall

PHRASE = "run untrusted code without a sandbox"
"""What must be typed before anything runs unconfined."""
LADDER: Mapping[Level, tuple[str, ...]] = {
    "strict": ("bubblewrap", "unshare"),
    "paranoid": ("gvisor",),
    "unsafe": ("none",),
}
"""Backends of each level, the first that works is taken; all of a level hold as much."""


class SandboxUnavailable(LlmfwError):
    """This machine can't hold programs as the level asks (exit code 8)."""

    exit_code = 8


class BindError(LlmfwError):
    """A folder that programs are to read can't be read from a sandbox (exit code 2)."""

    exit_code = 2


@dataclass(frozen=True, kw_only=True)
class Backend:
    """One way to hold programs, with what it turned out to have on this machine."""

    isolation: Isolation
    run: Callable[[Job], Outcome]
    live: bool = True
    """Whether two sandboxes can talk by pipes."""
    close: Callable[[], None] = lambda: None
    """Ends what was started ahead of jobs."""


@dataclass(frozen=True)
class _Missing:
    """Why a backend can't be had, and what mends it."""

    what: str
    mend: str


def backend(level: Level, *, binds: Sequence[str] = (), phrase: str = "", name: str | None = None) -> Backend:
    """The backend of a level.

    Args:
        binds: folders of the machine that programs may read.
        phrase: ``PHRASE``, for level ``unsafe``.
        name: one of the level's ladder; None: the first that works.

    Raises:
        SandboxUnavailable: SANDBOX, naming the missing feature; SANDBOX-UNSAFE, nobody typed the phrase.
        BindError: SANDBOX-BIND, programs couldn't read one of the folders.
    """
    if level == "unsafe" and phrase != PHRASE:
        raise SandboxUnavailable(
            "SANDBOX-UNSAFE", "programs would run as you, with all that you may do",
            mend=f"use level strict, or give the phrase {PHRASE!r}", key="sandbox.level",
        )  # fmt: skip
    for place in binds if level != "unsafe" else ():
        if why := unreadable(Path(place)):
            raise BindError(
                "SANDBOX-BIND",
                why,
                mend="name a folder elsewhere, one that everybody can read",
                key="mplsandbox.binds",
            )
    binds = tuple(str(Path(place).absolute()) for place in binds)
    tried = []
    for one in LADDER[level] if name is None else (name,):
        found = _probe(one, level, binds)
        if isinstance(found, Backend):
            return found
        tried.append(found)
    raise SandboxUnavailable(
        "SANDBOX", f"level {level} can't be had here: {'; '.join(one.what for one in tried)}",
        mend=tried[0].mend, key="sandbox.level",
    )  # fmt: skip


@cache
def _probe(name: str, level: Level, binds: tuple[str, ...]) -> Backend | _Missing:
    """What this machine has of a backend, found by starting a sandbox; once a process."""
    python = which("python3")
    if python is None:
        return _Missing("there's no python3 in /usr/bin for the supervisor", "apt-get install python3")
    return _PROBES[name](level, binds, python)


def _walled(
    level: Level, name: str, start: Callable[..., subprocess.Popen[bytes]], beside: int = 1
) -> Backend | _Missing:
    """A backend of namespaces and a filter, where one program comes through it as it should."""
    spares = Spares(Wall(start=start, cwd=WORK, landlock=True, beside=beside))
    outcome = spares.run(_look())
    if outcome.trouble or outcome.ends[0].status:
        return _Missing(f"{name} fails: {outcome.trouble or 'its program failed'}", _USERNS)
    landlock = outcome.ends[0].landlock
    features = (
        "user, pid, network, mount, ipc, uts and cgroup namespaces", "no capabilities", "no new privileges",
        "seccomp", "no new user namespaces", *(["landlock"] if landlock else []), "read-only toolchains",
        "sized file systems", "limits of each process", "limit of memory over all processes",
        "an unprivileged user",
    )  # fmt: skip
    missing = () if landlock else ("landlock (a kernel from 5.13 on)",)
    isolation = Isolation(level=level, backend=name, features=features, missing=missing)
    return Backend(isolation=isolation, run=spares.run, close=spares.close)


_USERNS = (
    "allow unprivileged user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone)"
)


def _look() -> Job:
    return Job(commands=[Command(argv=["/bin/true"], env={}, limits=Limits(seconds=5))])


def _bubblewrap(level: Level, binds: tuple[str, ...], python: str) -> Backend | _Missing:
    bwrap = which("bwrap")
    if bwrap is None:
        return _Missing("bubblewrap isn't installed", "apt-get install bubblewrap")
    if filter_program() is None:
        return _Missing("no seccomp filter is known for this processor", "use level paranoid")
    found: Backend | _Missing = _Missing("", "")
    for userns in (True, False):  # before bubblewrap 0.8 the filter alone forbids new user namespaces
        start = partial(bubblewrap.start, bwrap=bwrap, python=python, disable_userns=userns, binds=binds)
        found = _walled(level, "bubblewrap", start)
        if isinstance(found, Backend):
            break
    return found


def _unshare(level: Level, binds: tuple[str, ...], python: str) -> Backend | _Missing:
    if which("unshare") is None:
        return _Missing("there's no unshare", "apt-get install util-linux")
    if filter_program() is None:
        return _Missing("no seccomp filter is known for this processor", "use level paranoid")
    return _walled(level, "unshare", partial(unshare.start, python=python, binds=binds), beside=2)


def _gvisor(level: Level, binds: tuple[str, ...], python: str) -> Backend | _Missing:
    runsc = which("runsc")
    if runsc is None:
        return _Missing("gVisor isn't installed", "apt-get install runsc")
    carry = partial(gvisor.run, runsc=runsc, python=python, binds=binds)

    def run(job: Job) -> Outcome:
        """A program can end its own process 1 here: where sandboxes work otherwise, it's that."""
        outcome = carry(job)
        if outcome.trouble and not carry(_look()).trouble:
            return replace(outcome, trouble="", broken=outcome.trouble)
        return outcome

    outcome = carry(_look())
    if outcome.trouble or outcome.ends[0].status:
        return _Missing(f"gVisor fails: {outcome.trouble or 'its program failed'}", "runsc do true")
    features = (
        "a kernel of its own (gVisor)", "pid, network, mount, ipc and uts namespaces", "no capabilities",
        "no network but loopback", "read-only toolchains", "sized file systems", "limits of each process",
        "limit of memory over all processes", "an unprivileged user",
    )  # fmt: skip
    isolation = Isolation(level=level, backend="gvisor", features=features)
    return Backend(isolation=isolation, run=run, live=False)


def _none(level: Level, binds: tuple[str, ...], python: str) -> Backend | _Missing:
    isolation = Isolation(
        level=level, backend="none", features=("limits of each process",), missing=("isolation",)
    )
    return Backend(isolation=isolation, run=unconfined.run)


_PROBES: Mapping[str, Callable[[Level, tuple[str, ...], str], Backend | _Missing]] = {
    "bubblewrap": _bubblewrap,
    "unshare": _unshare,
    "gvisor": _gvisor,
    "none": _none,
}
