"""Distinct chains of a length, drawn by hashes alone: each place of the sequence is the same everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TypeVar

from llmfw.core.data.chains.chain import SIGNS, Chain
from llmfw.core.data.order import stable_hash

_T = TypeVar("_T")
_FACTORS = range(2, 10)
_PATIENCE = 64
"""Draws in a row that give nothing new; about a tenth of what can be drawn is left then, or less."""


@dataclass
class Chains:
    """All chains whose start is from 1 to ``largest`` and whose results are from 0 to ``largest``.

    An operation changes the value: nothing adds or subtracts 0, multiplies by 1 (factors are 2 to 9), or
    multiplies 0.
    """

    largest: int
    operations: str
    _ways: list[list[int]] = field(default_factory=list, init=False, repr=False)
    """[operations that follow][value] -> how many chains go on from there."""
    _dead: list[bool] = field(default_factory=list, init=False, repr=False)
    """[operations that follow] -> whether there's a value from which no chain goes on."""

    def total(self, level: int) -> int:
        """How many different chains of ``level`` operations there are."""
        return sum(self._going_on(level)[1:])

    def sequence(self, level: int, seed: int) -> Iterator[Chain]:
        """All chains of ``level`` operations, each once.

        Start, signs and operands are drawn alike often among those that are possible and lead on; when draws
        hardly ever give a new chain, the others follow in the order of their hashes.
        """
        seen: set[Chain] = set()
        idle = 0
        for number in count() if self.total(level) else ():
            chain = self._draw(level, seed, number)
            idle = idle + 1 if chain in seen else 0
            if idle == _PATIENCE:
                break
            if not idle:
                seen.add(chain)
                yield chain
        rest = [chain for chain in self._all(level) if chain not in seen]
        yield from sorted(rest, key=lambda chain: (stable_hash("rest", seed, chain.prompt()), chain.prompt()))

    def _draw(self, level: int, seed: int, number: int) -> Chain:
        def choose(place: object, among: Sequence[_T]) -> _T:
            return among[stable_hash("chain", seed, level, number, place) % len(among)]

        ways = self._going_on(level)
        starts: Sequence[int] = range(1, self.largest + 1)
        if self._dead[level]:
            starts = [value for value in starts if ways[value]]
        value = start = choose("start", starts)
        operations: list[tuple[str, int]] = []
        for step in range(level):
            possible = [
                (sign, operands)
                for sign in self.operations
                if (operands := self._operands(sign, value, level - step))
            ]
            sign, operands = choose(f"sign {step}", possible)
            operand = choose(f"operand {step}", operands)
            operations.append((sign, operand))
            value = SIGNS[sign](value, operand)
        return Chain(start, tuple(operations))

    def _all(self, level: int) -> Iterator[Chain]:
        def further(value: int, left: int) -> Iterator[tuple[tuple[str, int], ...]]:
            if not left:
                yield ()
                return
            for sign in self.operations:
                for operand in self._operands(sign, value, left):
                    for rest in further(SIGNS[sign](value, operand), left - 1):
                        yield ((sign, operand), *rest)

        for start in range(1, self.largest + 1):
            for operations in further(start, level):
                yield Chain(start, operations)

    def _operands(self, sign: str, value: int, left: int) -> Sequence[int]:
        """The operands that lead from a value to one from which ``left - 1`` operations follow."""
        possible = self._possible(sign, value)
        ways = self._going_on(left - 1)
        if not self._dead[left - 1]:
            return possible
        return [operand for operand in possible if ways[SIGNS[sign](value, operand)]]

    def _possible(self, sign: str, value: int) -> range:
        if sign == "+":
            return range(1, self.largest - value + 1)
        if sign == "-":
            return range(1, value + 1)
        return range(_FACTORS.start, min(_FACTORS.stop, self.largest // value + 1) if value else 0)

    def _going_on(self, level: int) -> list[int]:
        while len(self._ways) <= level:
            self._ways.append(self._further(self._ways[-1]) if self._ways else [1] * (self.largest + 1))
            self._dead.append(0 in self._ways[-1])
        return self._ways[level]

    def _further(self, ways: list[int]) -> list[int]:
        """How many chains go on from each value with one operation more than ``ways`` counts."""
        below = [0]
        for number in ways:
            below.append(below[-1] + number)  # below[v]: over all values less than v
        return [
            ("+" in self.operations) * (below[-1] - below[value + 1])
            + ("-" in self.operations) * below[value]
            + ("*" in self.operations) * sum(ways[value * factor] for factor in self._possible("*", value))
            for value in range(self.largest + 1)
        ]
