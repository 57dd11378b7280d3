"""Requests and results as JSON: what crosses a network, lies in files of lines, or is kept in a cache.

Bytes are ``{"base64": "..."}``. Arguments and returned values are JSON with the marks of values.py. What is
read is checked: unknown keys, types, sizes.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from .executor import RequestError
from .records import Case, Limits, Request, Result
from .values import plain
from .verdicts import reward

DERIVED = ("passed", "total", "pass_rate", "reward")
"""Keys of a told result that follow from the others."""
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The most that a request from outside may hold.

    Attributes:
        code: bytes of the program, as UTF-8.
        cases: tests.
        body: bytes of the whole JSON text.
        depth: lists and objects inside each other, in arguments and expected values.
        limits: the most of each limit.
    """

    code: int = 1 << 20
    cases: int = 1000
    body: int = 64 << 20
    depth: int = 64
    limits: Limits = Limits(
        seconds=600, wall=3600, memory=1 << 16, processes=4096, output=64 << 20, disk=1 << 14, files=1 << 14
    )


BOUNDS = Bounds()


def parse(
    text: str | bytes, *, bounds: Bounds = BOUNDS, file: str | Path | None = None, line: int | None = None
) -> Any:
    """A JSON text, strictly: no NaN, nothing too long or too deep.

    Raises:
        RequestError: BODY-SIZE, or REQUEST where it's none.
    """
    if len(text) > bounds.body:
        raise RequestError(
            "BODY-SIZE", f"{len(text)} bytes are more than {bounds.body}",
            mend="send less in one request", file=file, line=line,
        )  # fmt: skip
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        what = "it's too deep" if isinstance(error, RecursionError) else str(error)
        if isinstance(error, json.JSONDecodeError):
            what = f"{error.msg} at character {error.pos + 1}"
        raise RequestError(
            "REQUEST", f"this is no JSON: {what}", mend="send one JSON value", file=file, line=line
        ) from error


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} isn't a JSON value")


def request_of(
    row: Any, *, bounds: Bounds = BOUNDS, file: str | Path | None = None, line: int | None = None
) -> Request:
    """A request from its JSON object.

    Raises:
        RequestError: it names the key, and for an unknown one the nearest that there is.
    """
    return _Reader(bounds, file, line).record(Request, row, "")


def case_of(
    row: Any, *, bounds: Bounds = BOUNDS, file: str | Path | None = None, line: int | None = None
) -> Case:
    """A test from its JSON object.

    Raises:
        RequestError: as for ``request_of``.
    """
    return _Reader(bounds, file, line).record(Case, row, "")


def result_of(row: Any) -> Result:
    """A result from what ``told`` made of it.

    Raises:
        RequestError: it isn't one.
    """
    if isinstance(row, dict):
        row = {key: value for key, value in row.items() if key not in DERIVED}
    return _Reader(None, None, None).record(Result, row, "")


def told(result: Result) -> dict[str, Any]:
    """A result as JSON, with what follows from it: cases passed, their share, the reward."""
    more = {"passed": result.passed, "total": result.total, "pass_rate": result.pass_rate}
    found: dict[str, Any] = _written(Result, result)
    return {**found, **more, "reward": reward(result)}


def told_request(request: Request) -> dict[str, Any]:
    """A request as JSON, every field of it.

    Raises:
        TypeError: an argument can't be told in JSON.
    """
    found: dict[str, Any] = _written(Request, request)
    return found


def line_of(value: Any) -> str:
    """A JSON value as one line, without its end."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


@cache
def hints(kind: Any) -> Mapping[str, Any]:
    """The types of a record's fields."""
    found = get_type_hints(kind)
    return {one.name: found[one.name] for one in fields(kind)}


def options(kind: Any) -> tuple[Any, ...]:
    """The members of a union; of anything else itself."""
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _written(kind: Any, value: Any) -> Any:
    """A value of a type, as JSON."""
    if kind is Any:
        return plain(value)
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if is_dataclass(value):
        record: Any = type(value)
        return {name: _written(one, getattr(value, name)) for name, one in hints(record).items()}
    if isinstance(value, str) or value is None:
        return value
    if kind in (float, float | None):
        return float(value)
    inner = get_args(kind)
    if isinstance(value, Mapping):
        return {key: _written(inner[1], one) for key, one in value.items()}
    if isinstance(value, Sequence):
        return [_written(inner[0], one) for one in value]
    return value


@dataclass(frozen=True)
class _Reader:
    """Checks and converts; ``bounds`` None: of our own making, only types are checked."""

    bounds: Bounds | None
    file: str | Path | None
    line: int | None

    def _refuse(self, key: str, what: str, mend: str) -> RequestError:
        return RequestError("REQUEST", what, mend=mend, key=key or None, file=self.file, line=self.line)

    def record(self, kind: type[_T], row: Any, key: str) -> _T:
        """A dataclass from an object."""
        if not isinstance(row, dict):
            raise self._refuse(key, f"a JSON object is expected, not {_name(row)}", f"send a {kind.__name__}")
        record: Any = kind
        known = hints(record)
        for name in row:
            if name not in known:
                near = get_close_matches(name, known, n=1, cutoff=0.5)
                mend = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
                raise self._refuse(_under(key, name), f"{kind.__name__} has no key {name!r}", mend)
        for one in fields(record):
            if one.name not in row and one.default is one.default_factory:  # neither is there
                raise self._refuse(_under(key, one.name), "it's missing", f"give {one.name}")
        values = {name: self._value(known[name], row[name], _under(key, name)) for name in row}
        made = kind(**values)
        self._bounded(made, key)
        return made

    def _value(self, kind: Any, value: Any, key: str) -> Any:
        if kind is Any:
            self._shallow(value, key)
            return value
        several = options(kind)
        if value is None and type(None) in several:
            return None
        several = tuple(one for one in several if one is not type(None))
        if bytes in several and isinstance(value, dict):
            return self._bytes(value, key)
        if isinstance(value, str) and str in several:
            return value
        one = several[0]
        if is_dataclass(one) and isinstance(one, type):
            return self.record(one, value, key)
        if get_origin(one) is Literal:
            if isinstance(value, str) and value in get_args(one):
                return value
            raise self._refuse(key, f"{_shown(value)} isn't known", f"use one of {', '.join(get_args(one))}")
        if (found := self._many(one, value, key)) is not None:
            return found
        if one is float and isinstance(value, int | float) and not isinstance(value, bool):
            try:
                return float(value)
            except OverflowError:
                pass
        if one is int and isinstance(value, int) and not isinstance(value, bool):
            return value
        wanted = " or ".join(_WORDS.get(get_origin(each) or each, "a list") for each in several)
        raise self._refuse(key, f"{wanted} is expected, not {_name(value)}", "send it so")

    def _many(self, kind: Any, value: Any, key: str) -> Any:
        """The elements of a list or an object; None: it's none."""
        origin, inner = get_origin(kind), get_args(kind)
        if origin in (Sequence, tuple) and isinstance(value, list):
            if key == "cases" and self.bounds is not None and len(value) > self.bounds.cases:
                what = f"{len(value)} cases are more than {self.bounds.cases}"
                raise self._refuse(key, what, "send them in several requests")
            return tuple(self._value(inner[0], one, f"{key}[{at}]") for at, one in enumerate(value))
        if origin is Mapping and isinstance(value, dict):
            return {name: self._value(inner[1], one, _under(key, name)) for name, one in value.items()}
        return None

    def _bytes(self, value: dict[str, Any], key: str) -> bytes:
        text = value.get("base64")
        if len(value) == 1 and isinstance(text, str):
            try:
                return base64.b64decode(text, validate=True)
            except (binascii.Error, ValueError):
                pass
        raise self._refuse(key, "these aren't bytes", 'send text, or {"base64": "..."}')

    def _shallow(self, value: Any, key: str) -> None:
        if self.bounds is None:
            return
        level, depth = [value], 0
        while level := [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]:
            depth += 1
            if depth > self.bounds.depth:
                raise self._refuse(
                    key, f"it's deeper than {self.bounds.depth} levels", "send a flatter value"
                )

    def _bounded(self, made: Any, key: str) -> None:
        if self.bounds is None:
            return
        if isinstance(made, Limits):
            for name, most in vars(self.bounds.limits).items():
                value = getattr(made, name)
                if value is not None and not (math.isfinite(value) and 0 < value <= most):
                    raise self._refuse(
                        _under(key, name), f"{value} isn't above 0 and at most {most}", f"set {name} so"
                    )
            if made.wall is None and made.wall_seconds > (most := self.bounds.limits.wall_seconds):
                what = f"the wall time that follows is more than {most} s"
                raise self._refuse(_under(key, "seconds"), what, "set wall")
        elif isinstance(made, Request):
            if (size := len(made.code.encode("utf-8", "surrogatepass"))) > self.bounds.code:
                raise self._refuse("code", f"{size} bytes are more than {self.bounds.code}", "send less code")
            for path in (*made.files, *made.outputs):
                if not path.isprintable():  # surrogates aren't, either
                    raise self._refuse("files", f"{path!r} isn't a name for a file", "name it in letters")


_WORDS: Mapping[Any, str] = {
    str: "text", bytes: 'bytes ({"base64": "..."})', int: "a whole number", float: "a number",
    Mapping: "an object",
}  # fmt: skip


def _under(key: str, name: str) -> str:
    shown = name if name.isprintable() and len(name) <= 40 else repr(name[:40])
    return f"{key}.{shown}" if key else shown


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _name(value: Any) -> str:
    """A JSON value's type in words."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case str():
            return "text"
        case int() | float():
            return "a number" if not isinstance(value, int) else "a whole number"
        case list():
            return "a list"
        case _:
            return "an object"
