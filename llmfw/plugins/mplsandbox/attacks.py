"""Programs that try to get out of a sandbox or to cheat it, run for real; data/attacks.toml holds them.

Network attacks aim at listeners of this process on loopback, those on files at a folder made for them.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from .executor import Sandbox
from .languages import DATA
from .records import Case, Limits, Request, Result, Verdict

_LIMITS = Limits(seconds=2, wall=4, memory=128, processes=16, output=65536, disk=16, files=64)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What lies about while a program runs: a secret of this one attack in a file and in an environment, a
    TCP port and an abstract socket that this process listens at.
    """

    secret: str
    folder: Path
    tcp: socket.socket
    unix: socket.socket

    def fill(self, code: str) -> str:
        """The program with its blanks filled in."""
        values = {
            "{folder}": str(self.folder), "{port}": str(self.tcp.getsockname()[1]),
            "{abstract}": self.unix.getsockname().decode().lstrip("\0"), "{pid}": str(os.getpid()),
        }  # fmt: skip
        for blank, value in values.items():
            code = code.replace(blank, value)
        return code

    def connected(self) -> bool:
        """Whether somebody reached a listener."""
        for one in (self.tcp, self.unix):
            try:
                one.accept()[0].close()
            except BlockingIOError:
                continue
            return True
        return False


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One program. ``verdicts``: what it must end with; ``says``: what it must print, where it tells whether
    something was refused; ``detail``: the limit that must have ended it.
    """

    number: int
    name: str
    request: Request
    verdicts: tuple[Verdict, ...]
    detail: str = ""
    says: str | None = None
    gvisor: tuple[Verdict, ...] = ()
    """Verdicts where a kernel of its own answers; empty: the same as elsewhere."""

    def under(self, backend: str) -> Attack:
        """What is expected under a backend."""
        if backend != "gvisor" or not self.gvisor:
            return self
        return replace(self, verdicts=self.gvisor, detail="", says=None)


@dataclass(frozen=True, kw_only=True)
class Held:
    """What became of an attack; ``wrong`` empty: it was held."""

    attack: Attack
    verdict: Verdict
    detail: str
    wrong: str
    seconds: float


def carry_out(sandbox: Sandbox, chosen: Sequence[Attack] = ()) -> Iterator[Held]:
    """Run attacks (all of them) one after another."""
    for one in chosen or attacks():
        with _scene() as scene:
            request = replace(one.request, code=scene.fill(one.request.code))
            result = sandbox.run(request)
            yield _judged(one.under(result.isolation.backend), result, scene)


def _judged(one: Attack, result: Result, scene: Scene) -> Held:
    stage = result.cases[0]
    said = stage.stdout.strip()
    wrong = ""
    if result.verdict not in one.verdicts:
        words = (stage.stderr or stage.stdout).strip().rpartition("\n")[2][:120]
        wrong = f"its verdict is {result.verdict} ({stage.detail}), not {' or '.join(one.verdicts)}: {words}"
    elif one.detail and one.detail not in stage.detail:
        wrong = f"{stage.detail or 'nothing'} ended it, not {one.detail}"
    elif one.says is not None and said != one.says:
        wrong = f"it says {said[:120]!r}, not {one.says!r}"
    elif scene.secret in stage.stdout + stage.stderr + repr(stage.value):
        wrong = "it saw a secret of this machine"
    elif scene.connected():
        wrong = "it reached a listener of this machine"
    elif sorted(os.listdir(scene.folder)) != ["secret"]:
        wrong = "it wrote a file of this machine"
    elif survivors(scene.secret):
        wrong = "a process of its is still alive"
    return Held(
        attack=one, verdict=result.verdict, detail=stage.detail, wrong=wrong, seconds=stage.usage.wall
    )


def survivors(mark: str) -> list[int]:
    """Processes of this machine in whose command line the mark stands, but ours."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            text = (place / "cmdline").read_bytes()
        except OSError:
            continue
        if mark.encode() in text and int(place.name) != os.getpid():
            found.append(int(place.name))
    return found


@contextmanager
def _scene() -> Iterator[Scene]:
    secret = secrets.token_hex(12)
    with (
        tempfile.TemporaryDirectory(prefix="llmfw-attack-") as place,
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        folder = Path(place)
        folder.chmod(0o777)
        (folder / "secret").write_text(secret)
        (folder / "secret").chmod(0o644)
        unix.bind("\0llmfw-" + secrets.token_hex(8))
        unix.listen()
        tcp.setblocking(False)
        unix.setblocking(False)
        neighbour = subprocess.Popen(["/bin/sleep", "60"], env={"SECRET": secret})
        try:
            yield Scene(secret=secret, folder=folder, tcp=tcp, unix=unix)
        finally:
            neighbour.kill()
            neighbour.wait()


_CALLS = {"x86_64": (250, 298, 321, 323, 425), "aarch64": (219, 241, 280, 282, 425)}
"""Numbers of keyctl, perf_event_open, bpf, userfaultfd and io_uring_setup."""


@cache
def attacks() -> tuple[Attack, ...]:
    """All of them, in order."""
    with (DATA / "attacks.toml").open("rb") as file:
        rows = tomllib.load(file)["attack"]
    return tuple(_attack(**row) for row in rows)


def _attack(
    *,
    number: int,
    name: str,
    code: str,
    verdicts: Sequence[Verdict],
    limits: Mapping[str, Any] | None = None,
    call: Mapping[str, Any] | None = None,
    outputs: Sequence[str] = (),
    detail: str = "",
    says: str | None = None,
    gvisor: Sequence[Verdict] = (),
) -> Attack:
    request = Request(
        code=code.replace("{calls}", str(_CALLS.get(os.uname().machine, ()))), lang="python",
        limits=replace(_LIMITS, **(limits or {})), outputs=outputs, cases=[Case()],
    )  # fmt: skip
    if call is not None:
        case = Case(args=call["args"], expected=call["expected"])
        request = replace(request, mode="call", entry_point=call["function"], cases=[case])
    return Attack(
        number=number, name=name, request=request, verdicts=tuple(verdicts), detail=detail, says=says,
        gvisor=tuple(gvisor),
    )  # fmt: skip
