"""Ways out of the process that a plugin's code can't take: they become its error.

Covered are ``os._exit``, ``os.abort``, ``os.execv`` and ``os.execve`` (so all of ``os.exec*``), and harmful
signals to this very process through ``os.kill``, ``os.killpg``, ``signal.raise_signal`` and
``signal.pthread_kill``. Not covered is what no Python function does: a crash inside compiled code or
``ctypes``;
these end with a code other than 0.
"""

from __future__ import annotations

import os
import posix
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from llmfw.core.errors import PluginError
from llmfw.core.guard.owners import Owner, innermost, owner_of_file

_OURS = str(Path(__file__).parents[2]) + os.sep
_HARMLESS = {0, signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}
real_exit = os._exit
"""The way out that is always open: the watchdog's."""


class Entry(Protocol):
    """Plugin code that is under way in a thread. ``accused`` is what it tried: it can't swallow that."""

    owner: Owner
    what: str
    accused: PluginError | None


class _Thread(threading.local):
    def __init__(self) -> None:
        self.entries: list[Entry] = []


_here = _Thread()
_everywhere: list[Entry] = []
"""What is under way in all threads."""
_lock = threading.Lock()
_depth = 0
_pid = 0
_put: list[tuple[Any, str, Any]] = []
"""(module, name, what was there) while the ways out are closed."""


def on_thread(error: PluginError) -> None:
    """End the process where a plugin's own thread wants to."""
    from llmfw.core.guard.watchdog import end

    end(error)


def enter(entry: Entry) -> None:
    """Plugin code begins in this thread."""
    _here.entries.append(entry)
    _everywhere.append(entry)
    _close()


def leave(entry: Entry) -> None:
    """Plugin code is over in this thread."""
    entries = _here.entries
    if entries and entries[-1] is entry:
        entries.pop()
    elif entry in entries:
        entries.remove(entry)
    _everywhere.remove(entry)
    _open()


@contextmanager
def closed() -> Iterator[None]:
    """The ways out are closed to plugins' code for the length of the block, whoever calls it."""
    _close()
    try:
        yield
    finally:
        _open()


def _close() -> None:
    global _depth, _pid
    with _lock:
        _depth += 1
        if _depth == 1:
            _pid = os.getpid()
            for module, name, replacement in _REPLACED:
                _put.append((module, name, getattr(module, name)))
                setattr(module, name, replacement)


def _open() -> None:
    global _depth
    with _lock:
        _depth -= 1
        if _depth == 0:
            while _put:
                module, name, before = _put.pop()
                setattr(module, name, before)


def _refuse(name: str, arguments: tuple[Any, ...]) -> None:
    """Raise what this call makes the plugin guilty of; return where it's nobody's or another process's."""
    if os.getpid() != _pid:  # a forked child goes its own way
        return
    caller = sys._getframe(2)
    found = innermost(caller)
    file = caller.f_code.co_filename
    if file.startswith(_OURS) and owner_of_file(file) is None:
        return  # the core's own end
    entry = _here.entries[-1] if _here.entries else None
    apart = entry is None and threading.current_thread() is not threading.main_thread()
    if apart and found is None and _everywhere:
        entry = _everywhere[-1]  # a thread that does nothing else: whoever is under way began it
    if found is None and entry is None:
        return
    error = _accusation(name, arguments, found, entry, caller)
    for one in _here.entries:
        one.accused = one.accused or error
    if apart:
        on_thread(error)
    raise error


def _accusation(
    name: str,
    arguments: tuple[Any, ...],
    found: tuple[Owner, FrameType] | None,
    entry: Entry | None,
    caller: FrameType,
) -> PluginError:
    if found is None:
        assert entry is not None
        found = entry.owner, caller
    owner, frame = found
    what = entry.what if entry is not None else frame.f_code.co_qualname
    given = ", ".join(repr(argument)[:40] for argument in arguments)
    return PluginError(
        "PLUGIN-EXIT",
        f"{owner.title} wanted to end the process in {what}: {name}({given})",
        mend="raise an error instead",
        file=frame.f_code.co_filename,
        line=frame.f_lineno,
    )


def _always(*arguments: Any) -> bool:
    return True


def _to_itself(target: int, number: int, *_: Any) -> bool:
    return number not in _HARMLESS and target in (os.getpid(), 0, -1, -os.getpgrp())


def _to_its_group(target: int, number: int, *_: Any) -> bool:
    return number not in _HARMLESS and target in (0, os.getpgrp())


def _replaced(module: Any, name: str, harmful: Callable[..., bool]) -> list[tuple[Any, str, Any]]:
    real = getattr(module, name)

    def replacement(*arguments: Any, **named: Any) -> Any:
        given = (*arguments, *named.values())
        if harmful(*given):
            _refuse(f"{module.__name__}.{name}", given)
        return real(*arguments, **named)

    places = [module, posix] if module is os else [module]
    return [(place, name, replacement) for place in places]


_REPLACED = [
    *_replaced(os, "_exit", _always),
    *_replaced(os, "abort", _always),
    *_replaced(os, "execv", _always),
    *_replaced(os, "execve", _always),
    *_replaced(os, "kill", _to_itself),
    *_replaced(os, "killpg", _to_its_group),
    *_replaced(signal, "raise_signal", lambda number, *_: number not in _HARMLESS),
    *_replaced(signal, "pthread_kill", lambda thread, number, *_: number not in _HARMLESS),
]
