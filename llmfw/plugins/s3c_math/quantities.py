"""Numbers as texts write them: 1,000 and 3.50, -4 and not the 4 of 7-4. Plain Python."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

_NUMBER: Final = re.compile(
    r"(?:(?<![\w.)\-])-)?"  # a sign where nothing stands that it could be subtracted from
    r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?"
)
_SLIPS: Final = (1, 2, 3, 10, -1, -2, -3, -10)


@dataclass(frozen=True)
class Quantity:
    """A number that stands in a text from ``start`` to ``stop``; ``written`` is how."""

    written: str
    start: int
    stop: int

    @property
    def value(self) -> Decimal:
        """What it's worth."""
        return Decimal(self.written.replace(",", ""))

    def slipped(self, drawn: int) -> str:
        """Another number, off by 1, 2, 3 or 10, written as this one: with its sign, as many decimals, groups
        of three where it has some, and as many digits where it begins with a zero.
        """
        slip = _SLIPS[drawn % len(_SLIPS)]
        value = self.value + slip
        if (value < 0) != self.written.startswith("-"):
            value = self.value - slip
        if "," in self.written:
            return f"{value:,f}"
        padded = self.written.startswith("0") and self.written[1:2].isdigit()
        return f"{value:f}".zfill(len(self.written) if padded else 0)


def last_number(text: str) -> Quantity | None:
    """The last number of a text; None where it has none."""
    found = list(_NUMBER.finditer(text))
    return Quantity(found[-1][0], found[-1].start(), found[-1].end()) if found else None
