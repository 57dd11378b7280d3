"""Sources with weights: which they are, and which of them the next sample comes from.

With weights w (their sum is 1) source i has given between w_i t - 1 and w_i t + 1 of the first t samples,
whatever t: the schedule is that of the chairman assignment problem (Tijdeman 1980), computed in whole
numbers. It depends on the weights alone; which of its samples a source gives is decided by the seed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, gcd, lcm
from typing import Literal

from llmfw.core.data.examples import Example
from llmfw.core.data.order import stable_hash
from llmfw.core.errors import DataError

Until = Literal["first", "all"]


@dataclass(frozen=True)
class Mix:
    """The weights of sources, by their labels, and where an epoch ends."""

    weights: Mapping[str, float]
    until: Until = "first"

    @property
    def shares(self) -> dict[str, float]:
        """Each source's share of the samples."""
        whole = sum(self.weights.values())
        return {label: weight / whole for label, weight in self.weights.items()}


class Schedule:
    """Deals draws 0, 1, 2 ... to sources; walking on is cheap, a walk back begins anew."""

    def __init__(self, weights: Sequence[float]) -> None:
        exact = [Fraction(repr(float(weight))) for weight in weights]
        scale = lcm(*(weight.denominator for weight in exact))
        whole = [int(weight * scale) for weight in exact]
        common = gcd(*whole)
        self.parts = [part // common for part in whole]
        """Whole numbers in the ratio of the weights."""
        self.period = sum(self.parts)
        """After so many draws every source has had exactly its share."""
        self._restart()

    def _restart(self) -> None:
        self._done = 0
        self._given = [0] * len(self.parts)
        self._due = [self._deadline(index) for index in range(len(self.parts))]

    def draws(self, start: int, stop: int) -> list[tuple[int, int]]:
        """(source, how many samples it gave before) of the draws ``start`` to ``stop`` - 1."""
        if start < self._done:
            self._restart()
        if self._done < start - start % self.period:
            periods = start // self.period
            self._done = periods * self.period
            self._given = [periods * part for part in self.parts]
            self._due = [self._deadline(index) for index in range(len(self.parts))]
        while self._done < start:
            self._next()
        return [self._next() for _ in range(stop - start)]

    def counts(self, draws: int) -> list[int]:
        """How many of the first ``draws`` samples come from each source."""
        self.draws(draws, draws)
        return list(self._given)

    def _next(self) -> tuple[int, int]:
        """Of the sources that lag behind by 1 / (2k - 2) or more, the one that must soonest be served."""
        now, slack = self._done + 1, 2 * len(self.parts) - 2
        chosen = 0
        if slack:
            lagging = [
                index
                for index, part in enumerate(self.parts)
                if slack * (part * now - self.period * self._given[index]) >= self.period
            ]
            chosen = min(lagging, key=lambda index: (self._due[index], index))
        before = self._given[chosen]
        self._done, self._given[chosen] = now, before + 1
        self._due[chosen] = self._deadline(chosen)
        return chosen, before

    def _deadline(self, index: int) -> int:
        """The draw at which the source would lag by 1 - 1 / (2k - 2)."""
        slack = max(1, 2 * len(self.parts) - 2)
        return -(-self.period * (slack - 1 + slack * self._given[index]) // (slack * self.parts[index]))


@dataclass
class MixOrder:
    """The samples of each step of a mixture, as indices into ``examples``.

    Draws go on over epochs, and each source passes through its own samples again and again, shuffled anew in
    each pass; an epoch is a number of draws only. Every step is full. With ``group_by_length`` a step's
    samples are sorted by length, so that its micro-batches hold samples of like length: the shares of a step
    stay what they are.
    """

    examples: list[Example]
    global_batch: int
    seed: int
    mix: Mix
    group_by_length: bool = True
    _members: list[list[int]] = field(default_factory=list, init=False)
    _passes: deque[tuple[tuple[int, int], list[int]]] = field(init=False)

    def __post_init__(self) -> None:
        place = {label: index for index, label in enumerate(self.mix.weights)}
        self._members = [[] for _ in place]
        for index, example in enumerate(self.examples):
            self._members[place[example.source]].append(index)
        for label, members in zip(place, self._members, strict=True):
            if not members:
                raise DataError(
                    "NO-SAMPLES",
                    "no training sample of this source is left",
                    file=label,
                    mend="leave the source out, or check the counts that the data report prints",
                )
        self._labels = list(place)
        self._schedule = Schedule(list(self.mix.weights.values()))
        self._passes = deque(maxlen=2 * len(place))

    @property
    def epoch_samples(self) -> int:
        """Samples until the first source, or (``until="all"``) every source, has been seen in full."""
        schedule = self._schedule
        needed = [
            ceil(Fraction(len(members) * schedule.period, part))
            for members, part in zip(self._members, schedule.parts, strict=True)
        ]
        return min(needed) if self.mix.until == "first" else max(needed)

    @property
    def steps_per_epoch(self) -> float:
        """Optimizer steps in one epoch: its samples over the global batch."""
        return self.epoch_samples / self.global_batch

    def epoch(self, step: int) -> int:
        """The epoch in which a step begins."""
        return step * self.global_batch // self.epoch_samples

    def samples(self, step: int) -> list[int]:
        """The samples of optimizer step ``step`` (from 0)."""
        start = step * self.global_batch
        found = [
            self._sample(source, ordinal)
            for source, ordinal in self._schedule.draws(start, start + self.global_batch)
        ]
        return (
            sorted(found, key=lambda index: -self.examples[index].length) if self.group_by_length else found
        )

    def _sample(self, source: int, ordinal: int) -> int:
        number, at = divmod(ordinal, len(self._members[source]))
        for known, order in self._passes:
            if known == (source, number):
                return order[at]
        keys = {
            index: stable_hash(self.seed, self._labels[source], number, self.examples[index].id)
            for index in self._members[source]
        }
        order = sorted(self._members[source], key=lambda index: (keys[index], index))
        self._passes.append(((source, number), order))
        return order[at]
