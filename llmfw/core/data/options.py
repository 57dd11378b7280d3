"""``data.options`` of a preset: read into a dataclass, refused by key where a name or type is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, Final, get_type_hints

from llmfw.core.errors import UsageError


def _words(value: object) -> object:
    if not isinstance(value, (list, tuple)) or not all(isinstance(part, str) for part in value):
        return None
    return tuple(value)


def _numbers(value: object) -> object:
    """A list of whole numbers, a single one, or a range such as ``1-5``, whose last number belongs to it."""
    if type(value) is int:
        return (value,)
    if isinstance(value, (list, tuple)):
        return tuple(value) if all(type(part) is int for part in value) else None
    first, dash, last = value.partition("-") if isinstance(value, str) else ("", "", "")
    if dash and _is_plain(first) and _is_plain(last) and int(first) <= int(last):
        return tuple(range(int(first), int(last) + 1))
    return None


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 7


def _only(kind: type) -> Callable[[object], object]:
    return lambda value: value if type(value) is kind else None


def _mapping(value: object) -> object:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        return None
    return dict(value)


_READERS: Final[dict[Any, tuple[Callable[[object], object], str]]] = {
    bool: (_only(bool), "true or false"),
    int: (_only(int), "a whole number"),
    str: (_only(str), "a word"),
    tuple[str, ...]: (_words, "a list of words"),
    tuple[int, ...]: (_numbers, "a list of whole numbers, or a range such as 1-5"),
    dict[str, Any]: (_mapping, "names and values, {name: value}"),
}
"""Type of a field -> (what makes a value of it, None: it can't be; what is expected, in words)."""


def read_options(given: Mapping[str, Any], kind: type[Any]) -> Any:
    """``data.options`` as the dataclass ``kind``, whose fields' types say what is taken.

    Raises:
        UsageError: OPTION, an unknown name or a value of another type.
    """
    types = get_type_hints(kind)
    made: dict[str, Any] = {}
    for name, value in given.items():
        if name not in types:
            near = get_close_matches(name, types, 1) or sorted(types)
            raise UsageError(
                "OPTION",
                "this preset has no such option",
                key=f"data.options.{name}",
                mend=f"did you mean {', '.join(near)}?" if near else "leave it out",
            )
        read, words = _READERS[types[name]]
        made[name] = read(value)
        if made[name] is None:
            raise wrong_option(name, f"expected {words}, got {value!r}", f"give {words}")
    return kind(**made)


def wrong_option(name: str, what: str, mend: str) -> UsageError:
    """An option whose value can't be used, to be raised."""
    return UsageError("OPTION", what, key=f"data.options.{name}", mend=mend)
