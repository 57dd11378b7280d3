"""The data ``scripted-world``: trajectories of the planner with errors in houses that it plays.

No house is on both sides: a hash of its instruction in the world's own names decides.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, ClassVar

from llmfw import DataModule, Row
from llmfw.core.data import stable_hash

from .dialogue import to_chat
from .records import TrajectoryError, script_json
from .world.house import House, Plan, draw_house
from .world.names import CANONICAL, Names, drawn
from .world.planner import Played, play

NAME = "scripted-world"
"""What ``data.name`` says for these rows."""
_HELD_OUT_SHARE = 8
"""One house in so many is held out."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """``data.options`` of ``scripted-world``."""

    train: int = 400
    """Trajectories to train on."""
    validation: int = 40
    """Held-out trajectories."""
    names: str = "varied"
    """Words of the actions: fixed (the world's own in every episode) or varied (drawn for each episode)."""
    error_rate: float = 0.3
    """Probability of a mistake before each step."""
    least_errors: int = 2
    """Mistakes with their repairs that each trajectory has at least."""
    rooms: int = 3
    """Rooms of a house."""
    boxes: int = 3
    """Boxes of a house."""
    items: int = 2
    """Things in a house."""
    treats: float = 0.5
    """Share of the goals that want a thing washed or heated."""
    shut: float = 0.4
    """Share of the boxes that are shut at first."""
    choice: int = 6
    """Names of rooms, of boxes and of things that houses draw from."""
    seed: int = 0
    """Which houses are drawn; the run's seed has no part in it."""

    @property
    def plan(self) -> Plan:
        """How large the houses are."""
        names = ("rooms", "boxes", "items", "treats", "shut", "choice")
        return Plan(**{name: getattr(self, name) for name in names})


_RANGES: Mapping[str, tuple[float, float]] = {
    "train": (1, 1_000_000), "validation": (0, 1_000_000), "error_rate": (0, 1), "least_errors": (0, 8),
    "rooms": (2, 6), "boxes": (2, 6), "items": (1, 6), "treats": (0, 1),
    "shut": (0, 1), "choice": (2, 6), "seed": (0, 2**63),
}  # fmt: skip


def options_of(told: Mapping[str, Any]) -> Options:
    """``data.options``, checked.

    Raises:
        TrajectoryError: an unknown key, or a value out of its range.
    """
    known = {one.name for one in fields(Options)}
    for key, value in told.items():
        if key not in known:
            raise _wrong(key, f"there is no option {key!r}", f"use one of {', '.join(sorted(known))}")
        if key == "names":
            if value not in ("fixed", "varied"):
                raise _wrong(key, f"{value!r} is no choice", "say fixed or varied")
            continue
        low, high = _RANGES[key]
        whole = isinstance(getattr(Options(), key), int)
        right = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if not right or not low <= value <= high:
            raise _wrong(key, f"{value!r} is out of range", f"give a number from {low:g} to {high:g}")
    found = Options(**told)
    for key in ("rooms", "boxes", "items"):
        if getattr(found, key) > found.choice:
            raise _wrong(
                key, f"{getattr(found, key)} of {found.choice} names can't be drawn", "raise choice"
            )  # fmt: skip
    return found


def _wrong(key: str, what: str, mend: str) -> TrajectoryError:
    return TrajectoryError("DATA-OPTION", what, mend=mend, key=f"data.options.{key}")


def held_out(house: House) -> bool:
    """Whether a house is on the side that isn't trained on, whatever its actions are called."""
    return stable_hash(replace(house, names=CANONICAL).instruction()) % _HELD_OUT_SHARE == 0


def houses(options: Options, split: str, names: Names | None = None) -> Iterator[tuple[House, random.Random]]:
    """Houses of one side without end, each with the generator that goes on from it. Where there are few, they
    come again: what happens in them differs.

    Args:
        names: of the actions; None: as ``options.names`` says.
    """
    number = 0
    while True:
        draw = random.Random(stable_hash(NAME, options.seed, split, number))
        number += 1
        called = names or (drawn(draw) if options.names == "varied" else CANONICAL)
        house = draw_house(draw, called, options.plan)
        if held_out(house) == (split != "train"):
            yield house, draw


class ScriptedWorld(DataModule):
    """Rows of conversations whose messages say what kind of turn they are (``dialogue.to_chat``)."""

    kind: ClassVar[str | None] = "messages"

    def __init__(self, options: Options) -> None:
        self.options = options

    def name(self) -> str:
        return NAME

    def rows(self, split: str) -> Iterable[Row]:
        wanted = self.options.train if split == "train" else self.options.validation
        row = partial(trajectory_row, self.options, split)
        return [row(number, *found) for number, found in zip(range(wanted), houses(self.options, split))]

    def recipe(self) -> Mapping[str, Any]:
        return {"made of": "a planner's episodes in drawn houses, with mistakes and their repairs"} | {
            one.name: getattr(self.options, one.name) for one in fields(self.options)
        }


def played_in(options: Options, house: House, draw: random.Random) -> Played:
    """The planner's way through a house, with mistakes as the options say."""
    return play(house, draw, error_rate=options.error_rate, least=options.least_errors)


def trajectory_row(options: Options, split: str, number: int, house: House, draw: random.Random) -> Row:
    """The row of the planner's way through a house."""
    played = played_in(options, house, draw)
    row = to_chat(f"{split}-{number}", played.instruction, played.turns, source="rules")
    level = house.goal.treat or "place"
    return {**row, "level": level, "script": script_json(played.script)}
