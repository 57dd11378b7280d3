"""Words of a sweep: ``KEY=A,B,C`` are choices, ``KEY=LOW..HIGH`` is a range, everything else is a setting."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from llmfw.core.errors import UsageError

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})")
_LOG = re.compile(rf"log\(({_NUMBER})\.\.({_NUMBER})\)")
_OPEN, _CLOSE = "[{(", "]})"


@dataclass(frozen=True, kw_only=True)
class Swept:
    """A key and the values that it takes: ``choices`` as they would stand on the command line, or the range
    from ``low`` to ``high``, both included; ``log``: drawn evenly in the logarithm; ``whole``: integers.
    """

    key: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    @property
    def said(self) -> str:
        """As it stands on a command line."""
        if self.choices:
            return ",".join(self.choices)
        inside = f"{self.number(self.low)}..{self.number(self.high)}"
        return f"log({inside})" if self.log else inside

    @property
    def corners(self) -> tuple[str, ...]:
        """Every choice, or a range's two ends."""
        return self.choices or (self.number(self.low), self.number(self.high))

    def number(self, value: float) -> str:
        """A value of a range as a setting."""
        return str(int(value)) if self.whole else repr(float(value))


def split_swept(words: Sequence[str]) -> tuple[list[str], list[Swept]]:
    """(settings that hold in every run, keys that are swept), in the order of the words.

    Raises:
        UsageError: a key that is swept twice, an empty or repeated choice, a range that is none.
    """
    fixed: list[str] = []
    swept: list[Swept] = []
    for word in words:
        found = _swept(word)
        if found is None:
            fixed.append(word)
        elif any(found.key == other.key for other in swept):
            raise _wrong("it is swept twice", "name each key once", found.key)
        else:
            swept.append(found)
    for one in swept:
        if any(word.partition("=")[0].strip() == one.key for word in fixed):
            raise _wrong("it is both set and swept", "keep one of them", one.key)
    return fixed, swept


def combinations(swept: Sequence[Swept]) -> list[dict[str, str]]:
    """Every combination of the choices, the last key changing fastest.

    Raises:
        UsageError: a range has no finite number of values.
    """
    found: list[dict[str, str]] = [{}]
    for one in swept:
        if not one.choices:
            mend = "list values, or use --sampler random --trials N"
            raise _wrong("a range can't be walked in a grid", mend, one.key)
        found = [{**chosen, one.key: value} for chosen in found for value in one.choices]
    return found


def _swept(word: str) -> Swept | None:
    key, equals, value = word.partition("=")
    key, value = key.strip(), value.strip()
    if not equals:
        return None
    range_ = _RANGE.fullmatch(value) or _LOG.fullmatch(value)
    if range_ is not None:
        low, high = float(range_[1]), float(range_[2])
        log = value.startswith("log")
        whole = all(re.fullmatch(r"[+-]?\d+", part) for part in range_.groups())
        if low >= high or (log and low <= 0):
            raise _wrong(
                f"{value} is no range", "write LOW..HIGH with LOW below HIGH, above 0 in log(LOW..HIGH)", key
            )
        return Swept(key=key, low=low, high=high, log=log, whole=whole)
    choices = _parts(value, key)
    if len(choices) < 2:
        return None
    if len(set(choices)) < len(choices):
        twice = next(choice for choice in choices if choices.count(choice) > 1)
        raise _wrong(f"the value {twice} stands there twice", "name each value once", key)
    return Swept(key=key, choices=tuple(choices))


def _parts(value: str, key: str) -> list[str]:
    """The value cut at its commas, but for those inside quotes or brackets."""
    parts, depth, quote, begin = [], 0, "", 0
    for index, letter in enumerate(value):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in _OPEN:
            depth += 1
        elif letter in _CLOSE:
            depth -= 1
        elif letter == "," and depth == 0:
            parts.append(value[begin:index].strip())
            begin = index + 1
    parts.append(value[begin:].strip())
    if len(parts) > 1 and "" in parts:
        mend = "write KEY=A,B,C; a text with commas stands in quotes"
        raise _wrong("one of the values is empty", mend, key)
    return parts


def _wrong(what: str, mend: str, key: str) -> UsageError:
    return UsageError("SWEEP", what, mend=mend, key=key)
