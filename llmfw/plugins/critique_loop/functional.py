"""The arithmetic of the loop: shortcut barrier, caps, filters, budgets, and what refining changed
(arXiv 2411.16579; formulas that the paper doesn't print are listed in the README). Plain Python.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

_DIGITS = re.compile(r"[0-9]+")
_T = TypeVar("_T")


def digit_runs(text: str) -> int:
    """How many runs of digits a text has: ``12*3=36`` has three, ``3.5`` two."""
    return len(_DIGITS.findall(text))


def passes_barrier(refined: str, response: str, gold: str, slack: int = 2) -> bool:
    """Whether a refinement has as many numbers as the shorter of gold solution and response, less ``slack``:
    one that only restates a leaked answer has fewer.
    """
    return digit_runs(refined) >= min(digit_runs(gold), digit_runs(response)) - slack


def capped(items: Sequence[_T], key: Callable[[_T], Hashable], most: int) -> list[_T]:
    """The first ``most`` items of each key, in order, wherever they stand; 0: all."""
    seen: Counter[Hashable] = Counter()
    kept = []
    for item in items:
        name = key(item)
        seen[name] += 1
        if not most or seen[name] <= most:
            kept.append(item)
    return kept


def enough(right: int, least: int) -> bool:
    """The soft filter: whether so many right refinements keep a critique."""
    return right >= least


def generations(samples: int, wrong: int, refinements: int | None = None) -> int:
    """Texts generated for a problem of whose samples so many are wrong: the samples, and for each wrong one a
    critique and its refinements (None: as many as samples). N + k (1 + N).
    """
    again = samples if refinements is None else refinements
    return samples + wrong * (1 + again)


@dataclass(frozen=True)
class Change:
    """What refining did, as shares of all items: ``refined - first = gained - lost``, exactly."""

    first: float
    refined: float
    gained: float
    """Wrong, then right (i -> c)."""
    lost: float
    """Right, then wrong (c -> i)."""

    @property
    def delta(self) -> float:
        """refined - first."""
        return self.refined - self.first


def change(first: Sequence[bool], refined: Sequence[bool]) -> Change:
    """Of the answers to the same items before and after; zeros of nothing."""
    n = max(1, len(first))
    pairs = Counter(zip(first, refined, strict=True))
    gained, lost, both = pairs[False, True], pairs[True, False], pairs[True, True]
    return Change((both + lost) / n, (both + gained) / n, gained / n, lost / n)


def sizes(most: int) -> list[int]:
    """1, 2, 4 ... and ``most``: at how many chains or rounds curves are read."""
    found = [1]
    while found[-1] * 2 < most:
        found.append(found[-1] * 2)
    return found if found[-1] == most else [*found, most]
