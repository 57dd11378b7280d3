"""What an arm is, as a digest: equal digests mean that values of both can be put together."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from llmfw.core.claims import Arm


def define(arm: Arm, size: str, words: Sequence[str] = (), folder: Path | None = None) -> str:
    """Digest of an arm: its plugins and settings, and the source of its functions with what they hold.

    ``words`` are settings from the command line. Paths below ``folder`` count relative to it, so that an arm
    is the same on every machine. What a line for tables says doesn't matter.
    """
    told = {item.name: _plain(getattr(arm, item.name)) for item in fields(arm) if item.name != "about"}
    text = json.dumps([told, size, sorted(words)], sort_keys=True)
    if folder is not None:
        text = text.replace(str(folder), "PLUGIN")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def define_function(function: Any, folder: Path | None = None) -> str:
    """Digest of a function: its source and what it holds."""
    text = json.dumps(_plain(function), sort_keys=True)
    return hashlib.sha256((text.replace(str(folder), "PLUGIN") if folder else text).encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    """The value as json, told apart by what it says and never by where it lies in memory."""
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, functools.partial):
        return ["partial", _plain(value.func), _plain(value.args), _plain(value.keywords)]
    if inspect.ismethod(value):
        return ["method", _plain(value.__func__), _plain(value.__self__)]
    if inspect.isfunction(value):
        return _function(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(json.dumps(_plain(item), sort_keys=True) for item in value)
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return [type(value).__qualname__, {f.name: _plain(getattr(value, f.name)) for f in fields(value)}]
    name = getattr(value, "__qualname__", type(value).__qualname__)
    return f"{getattr(value, '__module__', type(value).__module__)}.{name}"


def _function(function: Any) -> list[Any]:
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):
        source = function.__code__.co_code.hex()
    # cells that aren't filled yet belong to a function that calls itself
    held = [
        _plain(cell.cell_contents) if cell.cell_contents is not function else "itself"
        for cell in function.__closure__ or ()
    ]
    return [function.__module__, function.__qualname__, source, _plain(function.__defaults__), held]
