"""What plugins answer: records checked field by field, and their functions made to name the plugin."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Hashable
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

from llmfw.core import records
from llmfw.core.guard.owners import Owner

_WATCHED = {records.NamedMetric: ("factory",), records.Command: ("factory",)}
"""Functions that are short, so that a hook's limits are theirs too."""
_NAMED_BY_CALLER = (records.DatasetTransform, records.Surgery)
"""Whoever applies these names plugin and record by itself, whoever made the record."""


def fault(record: Any) -> str | None:
    """What is wrong with a record, as ``field is VALUE, not WHAT``; None where each field has its type."""
    for name, hint in _fields(record.__class__).items():
        value = getattr(record, name)
        if not _fits(value, hint):
            return f"{name} is {_shown(value)}, not {_wanted(hint)}"
    if not getattr(record, "name", "x"):
        return "name is empty"
    return None


def guarded(record: Any, owner: Owner, hook: str, wrap: Callable[..., Any]) -> Any:
    """The record with its functions wrapped: ``wrap(function, owner, what, watched=...)``."""
    if isinstance(record, _NAMED_BY_CALLER):
        return record
    changes = {}
    for name, hint in _fields(record.__class__).items():
        value = getattr(record, name)
        if value is not None and _is_function(hint):
            what = f"{name} of {type(record).__name__} {record.name!r} ({hook})"
            changes[name] = wrap(value, owner, what, watched=name in _WATCHED.get(type(record), ()))
    return dataclasses.replace(record, **changes)


@cache
def _fields(cls: Hashable) -> dict[str, Any]:
    """Annotations of a record's fields; of what only type checkers import anything will do."""
    assert isinstance(cls, type)
    anything = SimpleNamespace(Command=Any, Tensor=Any)
    unknown: dict[str, Any] = {"click": anything, "torch": anything, "Metric": Any, "Batch": Any}
    unknown |= {"LossOutput": Any, "BatchKind": Any}
    if cls in (records.Loss, records.RolloutSampler):
        from llmfw.core.batch import BatchKind

        unknown["BatchKind"] = BatchKind
    hints = typing.get_type_hints(cls, localns=unknown)
    return {item.name: hints[item.name] for item in dataclasses.fields(cls)}


def _parts(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the hint itself."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if union else (hint,)


def _is_function(hint: Any) -> bool:
    return any(typing.get_origin(part) is typing.get_origin(Callable[..., Any]) for part in _parts(hint))


def _fits(value: Any, hint: Any) -> bool:
    return any(map(partial(_fits_one, value), _parts(hint)))


def _fits_one(value: Any, hint: Any) -> bool:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if hint in (None, type(None)):
        return value is None
    if origin is typing.Literal:
        return any(value == word and type(value) is type(word) for word in inner)
    if origin is tuple:
        if not isinstance(value, (tuple, list)):
            return False
        if len(inner) == 2 and inner[1] is Ellipsis:
            return all(_fits(one, inner[0]) for one in value)
        return len(value) == len(inner) and all(map(_fits, value, inner))
    if _is_function(hint):
        return callable(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(hint, type):
        return isinstance(value, hint)
    return True


def _wanted(hint: Any) -> str:
    said = []
    for part in _parts(hint):
        origin, inner = typing.get_origin(part), typing.get_args(part)
        if origin is typing.Literal:
            said.append(f"one of {', '.join(map(str, inner))}")
        elif origin is tuple:
            of = _wanted(inner[0]) if inner[-1] is Ellipsis else ", ".join(map(_wanted, inner))
            said.append(f"a tuple of {of}")
        elif _is_function(part):
            said.append("a function")
        elif part in (None, type(None)):
            said.append("None")
        else:
            said.append(_WORDS.get(part, getattr(part, "__name__", str(part))))
    return " or ".join(said)


_WORDS = {str: "text", bool: "true or false", int: "a whole number"}


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"of type {type(value).__name__}"
