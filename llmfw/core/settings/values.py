"""Values checked against the types of settings."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Any, Literal

from llmfw.core.settings.keys import Leaf, is_union, one_type_name
from llmfw.core.settings.strict_yaml import join, kind_of
from llmfw.core.tracking import redact

Texts = Mapping[str, str] | None


class WrongValue(Exception):
    """A value that a setting can't take; ``key`` is its dotted key, list index included."""

    def __init__(self, code: str, what: str, mend: str, key: str) -> None:
        super().__init__(what)
        self.code, self.what, self.mend, self.key = code, what, mend, key


def shown(key: str, value: Any) -> str:
    """A value as an error message may quote it: without secrets, and not too long."""
    text = repr(redact(value, key))
    return text if len(text) <= 80 else f"{text[:77]}..."


def fit(leaf: Leaf, value: Any, key: str, texts: Texts) -> Any:
    """``value`` as the setting holds it.

    ``texts`` are the scalars as written; there ``${...}`` still stands for something else;
    None: everything is resolved.

    Nothing is reinterpreted: text is no number, ``yes`` no boolean. Whole numbers serve as floats,
    numbers as text in the form in which they were written.

    Raises:
        WrongValue: another type is expected, or another word.
    """
    fitted = _fit(leaf.type, value, key, texts)
    if leaf.choices:
        words = fitted if isinstance(fitted, list) else [fitted]
        for word in words:
            if word is not None and word not in leaf.choices and (texts is None or "${" not in str(word)):
                raise _choice(word, leaf.choices, key)
    return fitted


def _choice(word: Any, words: Sequence[Any], key: str) -> WrongValue:
    near = get_close_matches(str(word), [str(choice) for choice in words], n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return WrongValue(
        "CONFIG-CHOICE",
        f"{shown(key, word)} isn't a choice",
        f"{hint}choose one of {', '.join(map(str, words))}",
        key,
    )


def _fit(kind: Any, value: Any, key: str, texts: Texts) -> Any:
    if kind is Any:
        return value
    if texts is not None and isinstance(value, str) and "${" in value:
        return value  # checked once more when it's resolved
    if is_union(kind):
        return _fit_union(kind, value, key, texts)
    origin = typing.get_origin(kind)
    if origin is Literal:
        words = typing.get_args(kind)
        for word in words:
            if (type(word) is type(value) and word == value) or (
                isinstance(word, str) and word == (texts or {}).get(key)
            ):
                return word
        raise _choice(value, words, key)
    if isinstance(kind, type) and issubclass(kind, Enum):
        if value not in kind.__members__:
            raise _choice(value, list(kind.__members__), key)
        return value
    if origin in (list, tuple):
        return _fit_list(kind, value, key, texts)
    if origin is dict:
        if not isinstance(value, dict):
            raise _type(value, "a mapping", f"write {key}={{name: value}}", key)
        inner = typing.get_args(kind)[1]
        return {name: _fit(inner, part, join(key, name), texts) for name, part in value.items()}
    return _fit_scalar(kind, value, key, texts)


def _fit_scalar(kind: Any, value: Any, key: str, texts: Texts) -> Any:
    written = (texts or {}).get(key)
    if value is None and kind is not type(None):
        what = "null" if written != "" else "empty"
        raise WrongValue(
            "CONFIG-TYPE", f"the value is {what}", f"give {_WANTED[kind]}, or leave the key out", key
        )
    if kind is bool:
        if isinstance(value, bool):
            return value
        raise _type(value, "true or false", f"write {key}=true or {key}=false", key)
    if kind in (int, float):
        return _fit_number(kind, value, key)
    if kind in (str, Path):
        if isinstance(value, str):
            return value
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return written if written is not None else str(value)
        mend = f"put it in quotes: '\"{written}\"'" if isinstance(value, bool) else "write text"
        raise _type(value, "text", mend, key)
    if value is None:
        return None
    raise _type(value, "null", "write null", key)


def _fit_number(kind: type, value: Any, key: str) -> int | float:
    if kind is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, float) and value.is_integer():
            raise _type(value, "a whole number", f"write {key}={int(value)}", key)
        raise _type(value, "a whole number", "write digits only, without a point or a leading zero", key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _type(value, "a number", "write it as 0.001 or 1e-3", key)
    try:
        number = float(value)
    except OverflowError:
        raise WrongValue("CONFIG-TYPE", "the number is too large", "write a smaller one", key) from None
    if number != number:
        raise WrongValue("CONFIG-TYPE", "the value is not a number (NaN)", "write a number", key)
    return number


_WANTED: Mapping[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
}


def _fit_union(kind: Any, value: Any, key: str, texts: Texts) -> Any:
    parts = typing.get_args(kind)
    if value is None and type(None) in parts:
        return None
    others = [part for part in parts if part is not type(None)]
    exact = [part for part in others if isinstance(part, type) and type(value) is part]
    refusal: WrongValue | None = None
    for part in [*exact, *others]:
        try:
            return _fit(part, value, key, texts)
        except WrongValue as wrong:
            refusal = refusal or wrong
    assert refusal is not None
    if len(others) > 1:
        wanted = " or ".join(_WANTED.get(part) or one_type_name(part) for part in others)
        raise _type(value, wanted, f"{refusal.mend}, or another of these", key)
    raise refusal


def _fit_list(kind: Any, value: Any, key: str, texts: Texts) -> list[Any]:
    if not isinstance(value, list):
        written = (texts or {}).get(key, value)
        raise _type(value, "a list", f"write {key}=[{written if not isinstance(value, dict) else ''}]", key)
    inner = [part for part in typing.get_args(kind) if part is not Ellipsis]
    if typing.get_origin(kind) is tuple and Ellipsis not in typing.get_args(kind):
        if len(value) != len(inner):
            what = f"{len(value)} values where {len(inner)} are expected"
            raise WrongValue("CONFIG-TYPE", what, f"write {len(inner)} values", key)
        return [_fit(part, item, f"{key}[{n}]", texts) for n, (part, item) in enumerate(zip(inner, value))]
    return [_fit(inner[0], item, f"{key}[{n}]", texts) for n, item in enumerate(value)]


def _type(value: Any, wanted: str, mend: str, key: str) -> WrongValue:
    got = (
        kind_of(value)
        if not isinstance(value, (str, int, float))
        else f"{kind_of(value)} ({shown(key, value)})"
    )
    return WrongValue("CONFIG-TYPE", f"{wanted} is expected, not {got}", mend, key)
