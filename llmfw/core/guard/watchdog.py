"""Names a plugin that doesn't come back, and ends the process: a thread that looks at the clock.

It works while the plugin sleeps, waits for a lock or computes in Python. Compiled code that never lets go of
the interpreter stops this thread too.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from llmfw.core.errors import PluginError, UsageError
from llmfw.core.guard import exits
from llmfw.core.guard.owners import Owner, Place, innermost
from llmfw.core.say import first_to_say, is_main_process

SECONDS = "LLMFW_PLUGIN_SECONDS"
_DEFAULT = 60.0
IMPORTING = 5.0
"""An import may take so many times the limit: libraries are read from disks of all kinds. It's warned of
after the limit.
"""
_FAREWELL = 5.0
"""Seconds for closing what is open."""
_IDLE = 10
"""Looks at an empty list after which the thread ends; the next hook starts it again."""


class Hanging:
    """One stretch of plugin code and the moment at which it has taken too long."""

    __slots__ = ("end", "limit", "owner", "patience", "thread", "warn", "what")

    def __init__(self, owner: Owner, what: str, limit: float, times: float) -> None:
        self.owner, self.what, self.thread = owner, what, threading.get_ident()
        self.patience, self.limit = limit, limit * times
        now = time.monotonic()
        self.end = now + self.limit
        self.warn = now + limit if times > 1 else math.inf


_lock = threading.Lock()
_watched: dict[int, Hanging] = {}
_thread: threading.Thread | None = None
_process = 0
_farewells: list[Callable[[str], None]] = []


def limit() -> float:
    """Seconds that a hook may take; 0: nobody looks at the clock (for a debugger).

    Raises:
        UsageError: ``LLMFW_PLUGIN_SECONDS`` is no number of seconds.
    """
    told = os.environ.get(SECONDS)
    if told is None:
        return _DEFAULT
    try:
        seconds = float(told)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise UsageError(
            "PLUGIN-SECONDS",
            f"{told!r} is no number of seconds",
            mend="give a number, 0 for no limit",
            key=SECONDS,
        )
    return seconds


def look_at(hanging: Hanging) -> None:
    """From now on the clock runs."""
    global _thread, _process
    with _lock:
        if _process != os.getpid():  # threads don't survive a fork, and the parent's hooks aren't ours
            _process, _thread = os.getpid(), None
            _watched.clear()
        if _thread is None:
            thread = threading.Thread(target=_look, name="llmfw-plugin-watchdog", daemon=True)
            thread.start()  # it waits for the lock
            _thread = thread
        _watched[id(hanging)] = hanging


def look_away(hanging: Hanging) -> None:
    """It came back."""
    with _lock:
        _watched.pop(id(hanging), None)


@contextmanager
def farewell(act: Callable[[str], None]) -> Iterator[None]:
    """Inside the block ``act(report)`` is called before the process is ended, to close what is open."""
    _farewells.append(act)
    try:
        yield
    finally:
        _farewells.remove(act)


def end(error: PluginError) -> None:
    """Say the error, close what is open, and end the process with the error's code. Never comes back."""
    with suppress(Exception):
        if first_to_say(str(error)):
            _print(str(error))
    report = f"{error}\n\n{_stacks()}"

    def close() -> None:
        for act in reversed(list(_farewells)):
            with suppress(Exception):
                act(report)
        with suppress(Exception):
            sys.stdout.flush()

    # in a thread of its own, as the plugin may hold what it needs
    closing = threading.Thread(target=close, daemon=True)
    closing.start()
    closing.join(_FAREWELL)
    exits.real_exit(error.exit_code)


def _look() -> None:
    global _thread
    idle = 0
    while True:
        with _lock:
            present = list(_watched.values())
            idle = 0 if present else idle + 1
            if idle > _IDLE:
                _thread = None
                return
        now = time.monotonic()
        for hanging in present:
            if now >= hanging.end:
                end(_error(hanging))
            if now >= hanging.warn and is_main_process():
                hanging.warn = math.inf
                _print(_warning(hanging))
        shortest = min((hanging.limit for hanging in present), default=_DEFAULT)
        time.sleep(min(1.0, max(0.02, shortest / 20)))


def _error(hanging: Hanging) -> PluginError:
    file, line = _stands(hanging)
    return PluginError(
        "PLUGIN-HANGS",
        f"{hanging.owner.title} has been in {hanging.what} for {hanging.limit:g} s",
        mend=f"mend or leave it out, or give it more time ({SECONDS}=SECONDS, 0: no limit)",
        file=file,
        line=line,
    )


def _warning(hanging: Hanging) -> str:
    place = ":".join(str(part) for part in _stands(hanging) if part is not None)
    return (
        f"warning: {hanging.owner.title} has been in {hanging.what} for {hanging.patience:g} s, at {place}; "
        f"after {hanging.limit:g} s it is ended"
    )


def _stands(hanging: Hanging) -> Place:
    frame = sys._current_frames().get(hanging.thread)
    found = innermost(frame, hanging.owner) or innermost(frame)
    if found is not None:
        frame = found[1]
    return (frame.f_code.co_filename, frame.f_lineno) if frame is not None else (None, None)


def _stacks() -> str:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"thread {names.get(thread, thread)}:\n{''.join(traceback.format_stack(frame))}"
        for thread, frame in sys._current_frames().items()
        if thread != threading.get_ident()
    )


def _print(line: str) -> None:
    """Past ``sys.stderr``, whose lock the plugin may hold."""
    with suppress(OSError):
        os.write(2, (line + "\n").encode(errors="replace"))
