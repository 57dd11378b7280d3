"""A chain: a number, and operations that are carried out on it one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import add, mul, sub
from typing import Any, Final, Literal, get_args

from llmfw.core.errors import DataError

Style = Literal["compact", "words"]
STYLES: Final[tuple[Style, ...]] = get_args(Style)
SIGNS: Final = {"+": add, "-": sub, "*": mul}
"""Sign -> what it does to two integers."""
_SAID: Final = {"+": "Add", "-": "Subtract", "*": "Multiply by"}


@dataclass(frozen=True)
class Chain:
    """``start``, and pairs of a sign (+, -, *) and an operand; calculated from left to right, without
    precedence.
    """

    start: int
    operations: tuple[tuple[str, int], ...]

    @property
    def values(self) -> list[int]:
        """The result after each operation."""
        found: list[int] = []
        value = self.start
        for sign, operand in self.operations:
            value = SIGNS[sign](value, operand)
            found.append(value)
        return found

    @property
    def result(self) -> int:
        """What the chain comes to."""
        return self.values[-1] if self.operations else self.start

    def prompt(self, style: Style = "compact") -> str:
        """The problem: ``7 +5``, or in words ``Start with 7. Add 5. What is the result?``."""
        if style == "compact":
            return " ".join([str(self.start), *(f"{sign}{operand}" for sign, operand in self.operations)])
        said = [f"{_SAID[sign]} {operand}." for sign, operand in self.operations]
        return " ".join([f"Start with {self.start}.", *said, "What is the result?"])

    def steps(self, style: Style = "compact") -> list[str]:
        """A line for each operation: ``7+5=12``, or in words ``7 + 5 = 12``."""
        before = [self.start, *self.values]
        return [
            step_line(left, sign, operand, result, style)
            for left, (sign, operand), result in zip(before, self.operations, before[1:], strict=False)
        ]


def step_line(left: int, sign: str, right: int, result: int, style: Style = "compact") -> str:
    """One line of a solution, whether it's right or not."""
    blank = " " if style == "words" else ""
    return blank.join([str(left), sign, str(right), "=", str(result)])


def chain_of(row: Mapping[str, Any]) -> Chain:
    """The chain of a row of the preset ``chain-arithmetic``.

    Raises:
        DataError: the row's ``meta`` holds none.
    """
    try:
        meta = row["meta"]
        operations = tuple((str(sign), int(operand)) for sign, operand in meta["operations"])
        if all(sign in SIGNS for sign, _ in operations):
            return Chain(int(meta["start"]), operations)
    except (KeyError, TypeError, ValueError):
        pass
    raise DataError(
        "NO-CHAIN",
        f"the row {row.get('id', '')} holds no chain of operations in meta.start and meta.operations",
        key="meta.operations",
        mend="use rows of data=chain-arithmetic",
    )


def style_of(row: Mapping[str, Any]) -> Style:
    """The style in which a row of the preset is written; ``compact`` where it doesn't say."""
    said = row.get("meta", {}).get("style", "compact")
    return next((style for style in STYLES if style == said), "compact")
