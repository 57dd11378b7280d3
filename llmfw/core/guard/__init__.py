"""Stands around plugins' code: what it raises, where it hangs, what it takes and how it tries to leave become
errors that name plugin, distribution, place in the contract, file and line.

``watch`` is for what is short: an import, a Config, an instance, a hook, a factory. ``answering`` is for what
may take its time: a loss, a transform, an evaluation.
"""

from __future__ import annotations

import dis
import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from types import TracebackType
from typing import Any, Literal

from llmfw.core.errors import LlmfwError, PluginError
from llmfw.core.guard import exits, watchdog
from llmfw.core.guard.belongings import Belongings, first_call
from llmfw.core.guard.owners import (
    Owner,
    Place,
    failure,
    know,
    owner_named,
    place_of_function,
    place_of_module,
    raised_in,
    told,
)
from llmfw.core.guard.watchdog import IMPORTING, SECONDS, farewell

__all__ = [
    "IMPORTING",
    "SECONDS",
    "Guarded",
    "Owner",
    "Place",
    "answering",
    "blaming",
    "excuse",
    "failure",
    "farewell",
    "know",
    "owner_named",
    "place_of_function",
    "place_of_module",
    "told",
    "watch",
]

_excuses: list[Callable[[BaseException], bool]] = []
_FULL = (errno.ENOSPC, errno.EDQUOT)


def excuse(nobodys: Callable[[BaseException], bool]) -> Callable[[BaseException], bool]:
    """Errors of which this is true aren't the plugin's in whose code they arise; usable as a decorator."""
    _excuses.append(nobodys)
    return nobodys


class answering:  # noqa: N801  # used like a function
    """Plugin code of any length in the block: what it raises is a PluginError, and it can't end the process.

    Args:
        owner: the plugin.
        what: the place in the contract, e.g. ``llmfw_loss`` or ``the transform 'cut' (llmfw_...)``.
        function: what is called, for a place where no line of the plugin is on the stack.

    Raises:
        PluginError: PLUGIN-RAISED for what isn't an LlmfwError already; PLUGIN-EXIT.
    """

    __slots__ = ("accused", "code", "function", "owner", "place", "what")

    def __init__(
        self,
        owner: Owner,
        what: str,
        function: Any = None,
        *,
        code: str = "PLUGIN-RAISED",
        place: Place = (None, None),
    ) -> None:
        self.owner, self.what, self.function, self.code, self.place = owner, what, function, code, place
        self.accused: PluginError | None = None

    def __enter__(self) -> answering:
        exits.enter(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        exits.leave(self)
        self._settle(error)
        return False

    def _settle(self, error: BaseException | None) -> None:
        if self.accused is not None and error is not self.accused:  # it swallowed the refusal
            raise self.accused from error
        if error is None:
            return
        if isinstance(error, LlmfwError):
            error.add_note(f"raised by {self.owner.title} in {self.what}")
        elif _is_theirs(error):
            raise failure(
                error, self.owner, self.what, code=self.code, function=self.function, place=self.place
            ) from error


class watch(answering):  # noqa: N801  # used like a function
    """The same for code that is short: it comes back in time, and leaves everything as it was.

    Args:
        times: how often the limit it may take (``IMPORTING``).

    Raises:
        PluginError: also PLUGIN-THIEF, where it took what belongs to the process. PLUGIN-HANGS ends the
            process.
        UsageError: ``LLMFW_PLUGIN_SECONDS`` is no number of seconds.
    """

    __slots__ = ("before", "hanging", "times")

    def __init__(
        self, owner: Owner, what: str, function: Any = None, *, times: float = 1.0, **more: Any
    ) -> None:
        super().__init__(owner, what, function, **more)
        self.times = times

    def __enter__(self) -> watch:
        seconds = watchdog.limit()
        self.before = Belongings()
        self.hanging = watchdog.Hanging(self.owner, self.what, seconds, self.times) if seconds else None
        exits.enter(self)
        try:
            if self.hanging is not None:
                watchdog.look_at(self.hanging)
        except BaseException:  # a block that isn't entered isn't left either
            exits.leave(self)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        if self.hanging is not None:
            watchdog.look_away(self.hanging)
        exits.leave(self)
        taken = self.before.put_back(self.owner)
        self._settle(error)
        if error is None and taken:
            file, line = first_call(self.owner, taken[0])
            if file is None:
                file, line = place_of_function(self.function)
            if file is None:
                file, line = self.place
            raise PluginError(
                "PLUGIN-THIEF",
                f"{self.owner.title} changed {' and '.join(thing.name for thing in taken)} in {self.what} "
                "(put back)",
                mend="leave alone what belongs to the run",
                file=file,
                line=line,
            )
        return False


class Guarded:
    """A function of a record that names its plugin when it fails. ``func`` is the function itself."""

    def __init__(self, func: Callable[..., Any], owner: Owner, what: str, *, watched: bool = False) -> None:
        self.func, self.owner, self.what, self.watched = func, owner, what, watched

    @cached_property
    def __wrapped__(self) -> Callable[..., Any]:
        return self.func

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        with (watch if self.watched else answering)(self.owner, self.what, self.func):
            return self.func(*arguments, **named)

    def __repr__(self) -> str:
        return f"<{self.what} of {self.owner.title}: {self.func!r}>"


def _of_a_plugin(error: BaseException) -> PluginError | None:
    """The error of the plugin whose line an exception comes from; None where no plugin's code raised it, or
    none is to be blamed.
    """
    if isinstance(error, LlmfwError) or not _is_theirs(error):
        return None
    seen: BaseException | None = error
    while seen is not None:
        found = raised_in(seen)
        if found is not None:
            owner, function, (file, line) = found
            return PluginError(
                "PLUGIN-RAISED",
                f"{owner.title} failed in {function}: {told(seen)}",
                mend="mend the plugin, or leave it out",
                file=file,
                line=line,
            )
        # what a library made of a plugin's KeyboardInterrupt is an exit
        seen = seen.__cause__ or seen.__context__ if isinstance(seen, SystemExit) else None
    return None


@contextmanager
def blaming() -> Iterator[None]:
    """For the length of a run: what callbacks, data modules and layers of plugins raise is theirs, wherever
    it's called, and they can't end the process.
    """
    with exits.closed():
        try:
            yield
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            found = _of_a_plugin(error)
            if found is None:
                raise
            raise found from error


def _is_theirs(error: BaseException) -> bool:
    """Whether an exception out of a plugin's code is its fault: no want of memory or disk, no Ctrl-C."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return False
    if isinstance(error, OSError) and error.errno in _FULL:
        return False
    if isinstance(error, (Exception, SystemExit)):
        return not any(nobodys(error) for nobodys in _excuses)
    return _by_statement(error)


def _by_statement(error: BaseException) -> bool:
    """Whether a ``raise`` in a plugin made it: a real Ctrl-C arrives between two other instructions."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or raised_in(error) is None:
        return False
    code = trace.tb_frame.f_code
    if raised_in(error)[2][0] != code.co_filename:  # type: ignore[index]  # it was just found
        return False
    return code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]
