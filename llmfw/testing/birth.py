"""What importing a plugin and building it touches, measured in a process of its own.

One server is started for a whole session: it imports the heavy libraries once, and forks for every
measurement, so that each begins in the same fresh state.
"""

from __future__ import annotations

import atexit
import importlib
import json
import logging
import os
import random
import select
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from llmfw.testing.imports import imports_of

SECONDS = 120
"""Longer than this no import may take."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate")
_STARTS = ("subprocess.Popen", "os.system", "os.posix_spawn", "os.fork", "os.exec")
_ASKS = ("socket.connect", "socket.getaddrinfo", "socket.bind")
_CODE = (".py", ".pyc", ".so", ".pyd", ".dylib")


def touched(value: str, sources: Sequence[Path]) -> list[str]:
    """What importing the plugin at the entry point ``value`` and building an instance with its defaults
    changes or uses, a phrase each; empty: it's born quietly.

    Args:
        sources: the plugin's files; the libraries that they import are loaded before.

    Raises:
        TimeoutError: it takes longer than ``SECONDS``.
    """
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    told = {"value": value, "sources": [str(file) for file in sources], "path": sys.path}
    server.stdin.write(json.dumps(told) + "\n")
    server.stdin.flush()
    ready, _, _ = select.select([server.stdout], [], [], SECONDS)
    answer = server.stdout.readline() if ready else ""
    if not answer:
        server.kill()
        _server.cache_clear()
        raise TimeoutError(f"importing {value} didn't end within {SECONDS} s, or ended its process")
    found: list[str] = json.loads(answer)
    return found


def begin() -> None:
    """Start the server, which imports while something else is done."""
    _server()


@cache
def _server() -> subprocess.Popen[str]:
    server = subprocess.Popen(
        [sys.executable, "-m", "llmfw.testing.birth"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    atexit.register(_end, server)
    return server


def _end(server: subprocess.Popen[str]) -> None:
    """Close the server's input, upon which it ends."""
    with suppress(OSError):
        for pipe in (server.stdin, server.stdout):
            if pipe is not None:
                pipe.close()
    with suppress(subprocess.TimeoutExpired):
        server.wait(timeout=5)
        return
    server.kill()


def serve() -> None:
    """Answer one line of json with another, each from a fork, until the input ends."""
    for library in ("numpy", "torch", "llmfw"):
        importlib.import_module(library)
    out = os.fdopen(os.dup(1), "w")
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    for line in sys.stdin:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            signal.alarm(SECONDS + 5)  # one that hangs must not outlive a server that was given up
            told = json.loads(line)
            found = _measure(told["value"], told["sources"], told["path"])
            os.write(write, json.dumps(found).encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            answer = pipe.read().decode() or json.dumps(["ends the process"])
        os.waitpid(child, 0)
        out.write(answer.replace("\n", " ") + "\n")
        out.flush()


def _measure(value: str, sources: Sequence[str], path: Sequence[str]) -> list[str]:
    from llmfw.testing import traces

    sys.path[:] = path
    importlib.invalidate_caches()
    module, _, attribute = value.partition(":")
    _load_libraries(sources, own=module.partition(".")[0])
    random.seed(0)
    before, shared = traces.look(), _shared()
    heard: list[str] = []
    building = False

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if phrase := _phrase(event, arguments, building):
            heard.append(phrase)

    sys.addaudithook(hear)
    try:
        plugin_class = getattr(importlib.import_module(module), attribute)
        building = True
        with suppress(TypeError):  # a setting without a default
            plugin_class(plugin_class.Config())
    except BaseException as error:  # the process is this measurement's own
        return [f"fails: {type(error).__name__}: {error}"]
    found = [*heard]
    found += [f"changes {what}" for what in traces.differences(before, traces.look())]
    found += [f"changes {name}" for name, now in _shared().items() if now != shared[name]]
    return list(dict.fromkeys(found))


def _load_libraries(sources: Sequence[str], own: str) -> None:
    """Import what the files import of others: what a library does at its first import isn't the plugin's."""
    for file in sources:
        for found in imports_of(Path(file)):
            if found.relative or (found.top == own and own != "llmfw") or ".plugins." in found.module:
                continue
            with suppress(Exception):
                library = importlib.import_module(found.module)
                if found.name is not None:
                    getattr(library, found.name, None)


def _shared() -> Mapping[str, Any]:
    """What the guard of a run doesn't put back, or what only a fresh process can tell."""
    import numpy as np
    import torch

    root = logging.getLogger()
    return {
        "Python's random numbers": random.getstate(),
        "numpy's random numbers": repr(np.random.get_state()),  # noqa: NPY002  # it's the global one that is looked at
        "torch's random numbers": torch.get_rng_state().tolist(),
        "the warning filters": list(warnings.filters),
        "the root logger": (root.level, list(root.handlers)),
        "the running threads": threading.active_count(),
        "sys.excepthook": sys.excepthook,
    }


def _phrase(event: str, arguments: tuple[Any, ...], building: bool) -> str:
    """What an audit event of Python says of a plugin; empty: nothing against it."""
    if event == "open":
        path, _, flags = arguments
        if isinstance(path, int) or str(path) == os.devnull:
            return ""
        if isinstance(flags, int) and flags & _WRITING:
            return f"writes the file {os.fsdecode(path)}"
        if building and not os.fsdecode(path).endswith(_CODE):
            return f"reads the file {os.fsdecode(path)} while it's built"
    elif event in _CHANGES:
        return f"changes the file or folder {arguments[0]!s}"
    elif event in _STARTS:
        return f"starts a process ({arguments[0]!s})"
    elif event in _ASKS:
        return "uses the network"
    return ""


if __name__ == "__main__":
    serve()
