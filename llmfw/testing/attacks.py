"""Programs that try to break out of a CodeExecutor, each with what has to become of it.

They're Python and bounded: where an executor holds nothing back they hurt nobody.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmfw.core.records import Execution, ExecutionLimits

_GRACE = 5.0
"""Seconds that an executor may take beyond the time limit, on a busy machine."""
_NAMED = """
import ctypes
ctypes.CDLL(None).prctl(15, b"{nonce}")  # the name under which its processes are looked for
"""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What lies about on this machine while a program runs; ``nonce`` is a secret of this one run."""

    nonce: str
    folder: Path
    """Holds the file ``secret`` with the nonce, which its owner alone may read; anyone may write here."""
    listener: socket.socket
    """A TCP port of this machine."""

    @property
    def port(self) -> int:
        """Number of the port."""
        return int(self.listener.getsockname()[1])

    def reached(self) -> bool:
        """Whether somebody connected to the port."""
        try:
            self.listener.accept()[0].close()
        except BlockingIOError:
            return False
        return True

    def left(self) -> list[int]:
        """Processes that bear the nonce as their name."""
        found = []
        for place in Path("/proc").glob("[0-9]*/comm"):
            try:
                name = place.read_text().strip()
            except OSError:
                continue
            found += [int(place.parent.name)] if name == self.nonce else []
        return found


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One program; ``{nonce}``, ``{folder}`` and ``{port}`` are filled in."""

    name: str
    code: str
    wrong: Callable[[Execution, Scene], str | None]
    """What is wrong with what became of it; None: nothing."""
    stdin: str = ""
    limits: ExecutionLimits = field(default_factory=lambda: ExecutionLimits(seconds=5.0))


def attack(executor: Any, one: Attack, folder: Path) -> str | None:
    """Run the program in the executor: what is wrong with the outcome; None: nothing."""
    with _scene(folder) as scene:
        code = one.code
        for key, value in (("nonce", scene.nonce), ("folder", scene.folder), ("port", scene.port)):
            code = code.replace(f"{{{key}}}", str(value))
        begun = time.monotonic()
        told = executor.run(code, language="python", stdin=one.stdin, limits=one.limits)
        took = time.monotonic() - begun
        if not isinstance(told, Execution):
            return f"{one.name}: it returned {type(told).__name__}, not an llmfw.Execution"
        if took > one.limits.seconds + _GRACE:
            return f"{one.name}: it took {took:.1f} s where {one.limits.seconds} were allowed"
        wrong = one.wrong(told, scene) or _left_behind(scene)
        return None if wrong is None else f"{one.name}: {wrong}"


@contextmanager
def _scene(folder: Path) -> Iterator[Scene]:
    nonce = secrets.token_hex(7)  # a process's name has 15 letters
    folder.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(dir=folder))
    place.chmod(0o777)
    secret = place / "secret"
    secret.touch(0o600)
    secret.write_text(nonce)
    neighbour = subprocess.Popen(["/bin/sleep", "30"], env={"SECRET": nonce})
    before = os.environ.get("LLMFW_KIT_SECRET")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        scene = Scene(nonce=nonce, folder=place, listener=listener)
        os.environ["LLMFW_KIT_SECRET"] = nonce
        try:
            yield scene
        finally:
            os.environ.pop("LLMFW_KIT_SECRET")
            if before is not None:
                os.environ["LLMFW_KIT_SECRET"] = before
            neighbour.kill()
            neighbour.wait()
            for pid in scene.left():
                os.kill(pid, signal.SIGKILL)


def _left_behind(scene: Scene) -> str | None:
    until = time.monotonic() + 1
    while found := scene.left():
        if time.monotonic() > until:
            return f"{len(found)} of its processes are still alive"
        time.sleep(0.02)
    return None


def _answers(text: str) -> Callable[[Execution, Scene], str | None]:
    def wrong(told: Execution, scene: Scene) -> str | None:
        if (told.status, told.stdout) == ("ok", text):
            return None
        return f"it is {told.status} with stdout {told.stdout[:80]!r} and stderr {told.stderr[-200:]!r}"

    return wrong


def _ends(*statuses: str, codes: tuple[int, ...] = ()) -> Callable[[Execution, Scene], str | None]:
    def wrong(told: Execution, scene: Scene) -> str | None:
        if told.status in statuses and (not codes or told.exit_code in codes):
            return None
        return f"its status is {told.status} (exit code {told.exit_code}), not {' or '.join(statuses)}"

    return wrong


def _cut(told: Execution, scene: Scene) -> str | None:
    written = max(len(told.stdout.encode()), len(told.stderr.encode()))
    if written > 10000:
        return f"{written} bytes of its output came back, where 10000 are allowed"
    return _ends("output_limit")(told, scene)


def _survived(told: Execution, scene: Scene) -> str | None:
    return "it got 512 MiB where 128 MiB are allowed" if "survived" in told.stdout else None


def _secret(told: Execution, scene: Scene) -> str | None:
    return "it saw a secret of this machine" if scene.nonce in told.stdout + told.stderr else None


def _connected(told: Execution, scene: Scene) -> str | None:
    return "it reached a port of this machine" if scene.reached() else None


def _wrote(told: Execution, scene: Scene) -> str | None:
    if (scene.folder / "written").exists() or (scene.folder / "secret").read_text() != scene.nonce:
        return "it wrote a file of this machine"
    return None


def _many(told: Execution, scene: Scene) -> str | None:
    made = told.stdout.split()[-1] if told.stdout.split() else "0"
    return f"it made {made} processes where 8 are allowed" if int(made) > 8 else None


_SHORT = ExecutionLimits(seconds=0.5)
ATTACKS: tuple[Attack, ...] = (
    Attack(
        name="input and output",
        code="import sys\nprint(sys.stdin.read()[::-1], end='')",
        stdin="a$(id)`id`'\"\\n é\nb",
        wrong=_answers("b\né n\\\"'`di`)di($a"),
    ),
    Attack(name="words", code="print('Error: MemoryError, timeout')", wrong=_ends("ok", codes=(0,))),
    Attack(name="exit code", code="raise SystemExit(3)", wrong=_ends("runtime_error", codes=(3,))),
    Attack(name="endless loop", code=f"{_NAMED}while True: pass", limits=_SHORT, wrong=_ends("time_limit")),
    Attack(
        name="deaf sleeper",
        code=f"{_NAMED}import signal, time\n"
        "for one in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:\n"
        "    signal.signal(one, signal.SIG_IGN)\n"
        "time.sleep(30)",
        limits=ExecutionLimits(seconds=3.0),  # on a busy machine, too, it's deaf before the time is up
        wrong=_ends("time_limit"),
    ),
    Attack(
        name="memory",
        code="x = bytearray(1 << 29)\nfor i in range(0, len(x), 4096): x[i] = 1\nprint('survived')",
        limits=ExecutionLimits(seconds=5.0, memory=128),
        wrong=_survived,
    ),
    Attack(
        name="output",
        code="for _ in range(20000): print('x' * 1000)",
        limits=ExecutionLimits(seconds=5.0, output=10000),
        wrong=_cut,
    ),
    Attack(
        name="network",
        code="import socket\nsocket.create_connection(('127.0.0.1', {port}), timeout=2)",
        wrong=_connected,
    ),
    Attack(
        name="files",
        code="for name in ('written', 'secret'):\n"
        "    try: open('{folder}/' + name, 'w').write('mine')\n"
        "    except OSError: pass",
        wrong=_wrote,
    ),
    Attack(name="private files", code="print(open('{folder}/secret').read())", wrong=_secret),
    Attack(name="environment", code="import os\nprint(dict(os.environ))", wrong=_secret),
    Attack(
        name="other processes",
        code="import glob\n"
        "for place in glob.glob('/proc/*/environ'):\n"
        "    try: print(open(place).read())\n"
        "    except OSError: pass",
        limits=ExecutionLimits(seconds=5.0, output=1 << 20),
        wrong=_secret,
    ),
    Attack(
        name="processes",
        code=f"{_NAMED}import os, time\n"
        "made = 1\n"
        "try:\n"
        "    for _ in range(60):\n"
        "        if os.fork() == 0:\n"
        "            time.sleep(20)\n"
        "            os._exit(0)\n"
        "        made += 1\n"
        "except OSError:\n"
        "    pass\n"
        "print(made, flush=True)",
        limits=ExecutionLimits(seconds=2.0, processes=8),
        wrong=_many,
    ),
    Attack(
        name="daemon",
        code=f"{_NAMED}import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        time.sleep(20)\n"
        "    os._exit(0)",
        limits=ExecutionLimits(seconds=2.0),
        wrong=lambda told, scene: None,
    ),
)
