"""Perturbations: the same world behind other words (section 6 of the sheet; P1 to P4 as recalled, P5 ours).

A renamer exchanges two forms of words. Applied to a text that has one form it gives the other, so it is its
own inverse: a bijection on all texts, and an action in the old form becomes one that the world behind it
doesn't know.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from . import Environment, Step

Swap = Callable[[str], str]


@dataclass(frozen=True, kw_only=True)
class ActionRenamer:
    """Words of actions: ``encode`` gives the perturbed form, ``decode`` the world's own; ``rewrite`` is
    applied to what the player is told.
    """

    name: str
    swaps: Sequence[Swap] = ()
    rewrite: Swap = str

    def encode(self, action: str) -> str:
        """The action as the player is to write it."""
        for swap in self.swaps:
            action = swap(action)
        return action

    def decode(self, action: str) -> str:
        """The action as the world behind it understands it."""
        for swap in reversed(self.swaps):
            action = swap(action)
        return action


class Renamed:
    """An environment behind a renamer. Put it outside of whatever else rewrites actions."""

    def __init__(self, world: Environment, renamer: ActionRenamer) -> None:
        self.world, self.renamer = world, renamer
        self.name = f"{world.name} {renamer.name}"

    def reset(self, seed: int) -> str:
        return self.renamer.rewrite(self.world.reset(seed))

    def step(self, action: str) -> Step:
        found = self.world.step(self.renamer.decode(action))
        return Step(
            observation=self.renamer.rewrite(found.observation),
            done=found.done,
            progress=found.progress,
            errors=found.errors,
        )

    def admissible(self) -> list[str]:
        return [self.renamer.encode(action) for action in self.world.admissible()]

    def mistake(self, draw: random.Random) -> tuple[str, str]:
        thought, action = self.world.mistake(draw)
        return self.renamer.rewrite(thought), self.renamer.encode(action)

    def close(self) -> None:
        self.world.close()


def exchange(one: str, other: str, *, start: str = "", stop: str = "") -> Swap:
    """Exchange two words wherever they stand (behind ``start`` and before ``stop``, expressions)."""
    find = re.compile(f"{start}(?:{re.escape(one)}|{re.escape(other)}){stop}")
    return lambda text: find.sub(lambda hit: other if hit[0] == one else one, text)


_NAME: Final = r"([A-Z]|[a-z]+ ?\d+)"  # a parameter's letter in the list of actions, or a thing's name
_TREAT: Final = re.compile(rf"\b(wash|heat) {_NAME} (with|using) (?=\S)")
_TAKE: Final = re.compile(rf"\btake {_NAME} from {_NAME}")
_FROM: Final = re.compile(rf"\bfrom {_NAME} take {_NAME}")
_BLANK: Final = re.compile(r"\b([a-z]+)( ?)(\d+)\b")


def _using(text: str) -> str:
    """``wash cup 1 with sink 1`` <-> ``wash cup 1 using sink 1``."""
    return _TREAT.sub(lambda hit: f"{hit[1]} {hit[2]} {'using' if hit[3] == 'with' else 'with'} ", text)


def _from_first(text: str) -> str:
    """``take cup 1 from box 1`` <-> ``from box 1 take cup 1``."""
    hits = [(hit.start(), hit.end(), f"from {hit[2]} take {hit[1]}") for hit in _TAKE.finditer(text)]
    hits += [(hit.start(), hit.end(), f"take {hit[2]} from {hit[1]}") for hit in _FROM.finditer(text)]
    made, last = "", 0
    for start, stop, said in sorted(hits):
        if start >= last:
            made, last = made + text[last:start] + said, stop
    return made + text[last:]


def _blank(text: str) -> str:
    """``cup 1`` <-> ``cup1``."""
    return _BLANK.sub(lambda hit: f"{hit[1]}{'' if hit[2] else ' '}{hit[3]}", text)


_GO: Final = exchange("go to", "move to", start=r"\b", stop=r"\b")
_HEADS: Final = (("Goal:", "Task:"), ("Actions:", "Commands:"), ("Map:", "Places:"))


def _format(text: str) -> str:
    """Other headings, and the parts of the instruction with blank lines between them."""
    for old, new in _HEADS:
        text = text.replace(old, new)
    return text.replace("\n", "\n\n")


PERTURBATIONS: Final[Mapping[str, ActionRenamer]] = {
    "original": ActionRenamer(name="original"),
    "P1": ActionRenamer(name="P1", swaps=(_using,), rewrite=_using),
    "P2": ActionRenamer(name="P2", swaps=(_GO,), rewrite=_GO),
    "P3": ActionRenamer(name="P3", swaps=(_from_first,), rewrite=_from_first),
    "P4": ActionRenamer(name="P4", swaps=(_blank,), rewrite=_blank),
    "P5": ActionRenamer(name="P5", rewrite=_format),
}
"""Name -> renamer; P5 changes what the player is told and no action."""
