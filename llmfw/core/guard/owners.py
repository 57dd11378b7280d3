"""Whose code is it: plugins by the files that are theirs, and their line behind an error or a call."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import FrameType, TracebackType
from typing import Any

from llmfw.core.errors import PluginError

Place = tuple[str | None, int | None]
_LONGEST = 300
"""Characters of a foreign message that one line may carry."""


@dataclass(frozen=True)
class Owner:
    """A plugin as messages name it. ``roots`` are its files, and its folders with a slash at the end."""

    name: str
    origin: str = ""
    roots: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Name and distribution."""
        return f"plugin {self.name!r} ({self.origin})" if self.origin else f"plugin {self.name!r}"


_known: dict[str, Owner] = {}


def know(owner: Owner) -> Owner:
    """Remember whose files these are, from a plugin's import on."""
    if _known.get(owner.name) != owner:
        _known[owner.name] = owner
        owner_of_file.cache_clear()
    return owner


def owner_named(name: str) -> Owner:
    """The plugin of a name, with its files where it was imported through its entry point."""
    return _known.get(name) or Owner(name)


@cache
def owner_of_file(file: str) -> Owner | None:
    """The plugin that a source file belongs to; of several the one with the narrowest folder."""
    found = [
        (len(root), owner)
        for owner in _known.values()
        for root in owner.roots
        if file == root or (root.endswith(os.sep) and file.startswith(root))
    ]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def innermost(frame: FrameType | None, owner: Owner | None = None) -> tuple[Owner, FrameType] | None:
    """The frame of a plugin (of ``owner``, where one is given) that is nearest to where the thread stands."""
    while frame is not None:
        found = owner_of_file(frame.f_code.co_filename)
        if found is not None and owner in (None, found):
            return found, frame
        frame = frame.f_back
    return None


def raised_in(error: BaseException) -> tuple[Owner, str, Place] | None:
    """Plugin, function and place of the innermost frame of a plugin that an error passed through."""
    best = None
    for trace in _traces(error):
        owner = owner_of_file(trace.tb_frame.f_code.co_filename)
        if owner is not None:
            code = trace.tb_frame.f_code
            best = owner, code.co_qualname, (code.co_filename, trace.tb_lineno)
    return best


def place_of(
    error: BaseException, owner: Owner | None = None, function: Any = None, otherwise: Place = (None, None)
) -> Place:
    """File and line to look at: of a syntax error itself, else of the plugin's innermost frame, else of the
    function that was called, else ``otherwise``, else of the innermost frame.
    """
    if isinstance(error, SyntaxError) and error.filename and os.path.isfile(error.filename):
        return error.filename, error.lineno
    best = last = None
    for trace in _traces(error):
        last = trace.tb_frame.f_code.co_filename, trace.tb_lineno
        found = owner_of_file(last[0])
        if found is not None and owner in (None, found):
            best = last
    called = place_of_function(function)
    if best is None and called[0] is not None:  # a plugin that wasn't imported through its entry point
        for trace in _traces(error):
            if trace.tb_frame.f_code.co_filename == called[0]:
                best = called[0], trace.tb_lineno
    return best or next((place for place in (called, otherwise, last) if place and place[0]), (None, None))


def place_of_function(function: Any) -> Place:
    """Where a function is written; behind partials and decorators the innermost one."""
    seen = 0
    while seen < 20 and (inner := getattr(function, "__wrapped__", None) or getattr(function, "func", None)):
        function, seen = inner, seen + 1
    function = getattr(function, "__func__", function)
    code = getattr(function, "__code__", None)
    return (code.co_filename, code.co_firstlineno) if code is not None else (None, None)


def place_of_module(module: str) -> Place:
    """The first line of an imported module."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return (file, 1) if file else (None, None)


def failure(
    error: BaseException,
    owner: Owner,
    what: str,
    *,
    code: str,
    function: Any = None,
    place: Place = (None, None),
) -> PluginError:
    """What a plugin's code raised, as its error. ``what`` says in which place of the contract; where another
    plugin's code is what failed, that one is named too.
    """
    inner = raised_in(error)
    who = f"{owner.title} failed in {what}"
    if inner is not None and inner[0].name != owner.name:
        file, line = inner[2]
        who = f"{inner[0].title} failed in {inner[1]}, called by {owner.title} in {what}"
    else:
        file, line = place_of(error, owner, function, place)
    return PluginError(
        code,
        f"{who}: {told(error)}",
        mend="mend the plugin, or leave it out",
        file=file,
        line=line,
    )


def told(error: BaseException) -> str:
    """An exception's type and message, short enough for a line."""
    text = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
    return text if len(text) <= _LONGEST else text[:_LONGEST] + " ..."


def _traces(error: BaseException) -> Iterator[TracebackType]:
    trace = error.__traceback__
    while trace is not None:
        yield trace
        trace = trace.tb_next
