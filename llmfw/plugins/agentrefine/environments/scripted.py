"""Houses of the scripted world as environments, and its suites."""

from __future__ import annotations

import random
from collections.abc import Sequence

from ..rows import Options, houses
from ..world.house import House, action_text, step
from ..world.names import CANONICAL, HELD_OUT, Names
from ..world.planner import mistake, next_move
from . import Environment, Step, Suite
from .renamed import PERTURBATIONS, Renamed


class Scripted:
    """A house; ``seed`` draws the mistakes that are asked for, the house is given."""

    def __init__(self, house: House, name: str = "house") -> None:
        self.name, self._first, self.house = name, house, house

    def reset(self, seed: int) -> str:
        self.house = self._first
        return self.house.instruction()

    def step(self, action: str) -> Step:
        outcome = step(self.house, action)
        self.house = outcome.house
        return Step(
            observation=outcome.observation,
            done=self.house.done,
            progress=self.house.progress,
            errors=outcome.errors,
        )

    def admissible(self) -> list[str]:
        return [action for action in _every(self.house) if not step(self.house, action).errors.any]

    def mistake(self, draw: random.Random) -> tuple[str, str]:
        move = mistake(self.house, draw)
        return move.thought, move.action

    def oracle(self) -> tuple[str, str]:
        """(thought, action) of a shortest way."""
        move = next_move(self.house)
        return move.thought, move.action

    def close(self) -> None:
        """Nothing to let go."""


def _every(house: House) -> list[str]:
    """Every action whose names stand in the house."""
    carried = [house.held] if house.held else []
    items = [*house.items, *carried]
    pairs = [(item, box) for item in items for box in house.boxes]
    treats = [(item, tool) for item in items for tool in house.tools]
    return [
        *(action_text(house, "go", room) for room in house.rooms),
        *(action_text(house, kind, box) for kind in ("open", "close") for box in house.boxes),
        *(action_text(house, kind, *pair) for kind in ("take", "put") for pair in pairs),
        *(action_text(house, kind, *pair) for kind in ("wash", "heat") for pair in treats),
        action_text(house, "look"),
        action_text(house, "bag"),
    ]


def suites(kind: str, episodes: int, options: object) -> list[Suite]:
    """The suites of a name, in houses that aren't trained on, the same for every suite.

    ``held_in``: words of the actions as they're trained. ``held_out``: words that are never trained.
    ``perturbed``: the world's own words (``original``), and P1 to P5. ``forced``: as held_in, beginning with
    a mistake that the harness makes.
    """
    told = options if isinstance(options, Options) else Options()
    if kind == "perturbed":
        plain = _houses(told, episodes, CANONICAL)
        return [
            Suite(
                name=f"perturbed/{name}",
                worlds=[(Renamed(Scripted(house), renamer), at) for at, house in enumerate(plain)],
                perturbed=True,
            )
            for name, renamer in PERTURBATIONS.items()
        ]
    names = HELD_OUT if kind == "held_out" else None
    worlds: Sequence[tuple[Environment, int]] = [
        (Scripted(house), at) for at, house in enumerate(_houses(told, episodes, names))
    ]
    return [Suite(name=kind, worlds=worlds, forced=kind == "forced")]


def _houses(options: Options, episodes: int, names: Names | None) -> list[House]:
    return [house for _, (house, _) in zip(range(episodes), houses(options, "episodes", names))]
