"""The preset ``chain-arithmetic``: problems whose level is their number of operations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

from llmfw.core.data.chains.chain import SIGNS, STYLES, Chain, Style
from llmfw.core.data.chains.draw import Chains
from llmfw.core.data.module import DataModule
from llmfw.core.data.options import read_options, wrong_option
from llmfw.core.records import Row
from llmfw.core.schema import DataConfig

_MOST = 10_000
"""Highest ``largest``: the ways on from each value are counted."""


@dataclass(frozen=True)
class Options:
    """``data.options`` of ``chain-arithmetic``."""

    levels: tuple[int, ...] = (1, 2, 3, 4, 5)
    """Numbers of operations; each has an equal share of the problems."""
    train: int = 1000
    """Training problems, of all levels together."""
    validation: int = 200
    """Held-out problems, of all levels together."""
    style: str = "compact"
    """How problems and steps are written: compact (``7 +5 *3``) or words."""
    largest: int = 99
    """All numbers lie between 0 and this."""
    operations: str = "+-*"
    """The signs that occur."""
    seed: int = 0
    """Which problems are drawn; the run's seed has no part in it."""


class ChainArithmetic(DataModule):
    """Generated chains; no problem stands on both sides. More training problems are the same ones and
    further ones, and leave the held-out ones as they are.
    """

    kind: ClassVar[str | None] = "problems"

    def __init__(self, config: DataConfig, tokenizer: Any) -> None:
        self.config = config
        self.options: Options = read_options(config.options, Options)
        _check(self.options)
        self._style: Style = next(style for style in STYLES if style == self.options.style)
        signs = "".join(sign for sign in SIGNS if sign in self.options.operations)
        self._chains = Chains(self.options.largest, signs)
        self._check_totals()

    def name(self) -> str:
        return self.config.name

    def rows(self, split: str) -> Iterable[Row]:
        options = self.options
        sides = {level: self._side(level, split, place) for place, level in enumerate(options.levels)}
        wanted = options.train if split == "train" else options.validation
        for number in range(wanted):  # levels take turns, so that any beginning holds as many of each
            yield self._row(next(sides[options.levels[number % len(options.levels)]]))

    def recipe(self) -> Mapping[str, Any]:
        options = self.options
        return {
            "made of": "chains of operations, drawn by hashes",
            "levels": list(options.levels),
            "numbers": f"0 to {options.largest}",
            "operations": " ".join(options.operations),
            "seed": options.seed,
        }

    def _side(self, level: int, split: str, place: int) -> Iterator[Chain]:
        """A level's chains on one side: the first are held out, the next are trained on."""
        sequence = self._chains.sequence(level, self.options.seed)
        held_out = _share(self.options.validation, place, len(self.options.levels))
        return islice(sequence, held_out, None) if split == "train" else sequence

    def _row(self, chain: Chain) -> Row:
        return {
            "id": chain.prompt().replace(" ", ""),
            "prompt": chain.prompt(self._style),
            "answer": str(chain.result),
            "solution": chain.steps(self._style),
            "level": len(chain.operations),
            "meta": {
                "start": chain.start,
                "operations": [[sign, operand] for sign, operand in chain.operations],
                "style": self._style,
            },
        }

    def _check_totals(self) -> None:
        options = self.options
        count = len(options.levels)
        for place, level in enumerate(options.levels):
            wanted = _share(options.train, place, count) + _share(options.validation, place, count)
            there = self._chains.total(level)
            if wanted > there:
                raise wrong_option(
                    "train",
                    f"{wanted} problems of level {level} are asked for, {options.validation} of all levels "
                    f"held out among them, and there are {there} with numbers up to {options.largest} and "
                    f"{' '.join(options.operations)}",
                    "ask for fewer, leave the level out, or raise data.options.largest",
                )


def _share(wanted: int, place: int, levels: int) -> int:
    """How many of ``wanted`` problems the level at ``place`` gives; the first levels give what's over."""
    return wanted // levels + (place < wanted % levels)


def _check(options: Options) -> None:
    if not options.levels or min(options.levels) < 1 or len(set(options.levels)) < len(options.levels):
        raise wrong_option(
            "levels", f"{list(options.levels)} are no different numbers of operations",
            "give each number once, from 1 on",
        )  # fmt: skip
    for name, least in (("train", 1), ("validation", 0), ("largest", 1)):
        if getattr(options, name) < least:
            raise wrong_option(name, f"{getattr(options, name)} is too few", f"give {least} or more")
    if options.largest > _MOST:
        raise wrong_option("largest", f"{options.largest} is too much", f"give at most {_MOST}")
    if options.style not in STYLES:
        raise wrong_option("style", f"{options.style!r} is none of {', '.join(STYLES)}", "choose one of them")
    signs = options.operations
    if not signs or set(signs) - set(SIGNS) or len(set(signs)) < len(signs):
        raise wrong_option(
            "operations", f"{signs!r} isn't made of {' '.join(SIGNS)}, each once at most",
            f"give some of them, e.g. {''.join(SIGNS)}",
        )  # fmt: skip
