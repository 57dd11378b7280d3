"""BabyAI levels (arXiv 1810.08272) of MiniGrid behind the adapter: what the agent sees, in words."""

from __future__ import annotations

import random
from importlib import import_module
from typing import Any, Final

from ..records import EnvironmentProblem, Errors
from . import Step, needs_babyai

ACTIONS: Final = ("turn left", "turn right", "move forward", "pick up", "drop", "toggle")
"""Actions by MiniGrid's number."""
_UNSEEN, _EMPTY, _WALL = 0, 1, 2


class BabyAi:
    """One level; a seed draws the mission and the grid. Progress is 0, and 1 with the mission fulfilled.

    An action that isn't among ``ACTIONS`` is a parameter error; one that leaves the grid and the agent as
    they were is a logic error.

    Raises:
        EnvironmentProblem: the package isn't there, or there is no such level.
    """

    def __init__(self, level: str) -> None:
        needs_babyai()
        gymnasium: Any = import_module("gymnasium")
        import_module("minigrid")  # it registers the levels
        known = sorted(name for name in gymnasium.registry if name.startswith("BabyAI-"))
        names = [name for name in known if name.rpartition("-v")[0] == f"BabyAI-{level}" or name == level]
        if not names:
            raise EnvironmentProblem(
                "ENVIRONMENT", f"BabyAI has no level {level!r}",
                mend=f"use one such as {', '.join(name[7:].rpartition('-v')[0] for name in known[:8])}",
                key="agentrefine.environments",
            )  # fmt: skip
        self.name = f"babyai:{level}"
        self._env: Any = gymnasium.make(names[-1])
        self._seen: Any = None

    def reset(self, seed: int) -> str:
        self._seen, _ = self._env.reset(seed=seed)
        mission = self._seen["mission"]
        return f"Goal: {mission}\nActions: {', '.join(ACTIONS)}\n{self._view()}"

    def step(self, action: str) -> Step:
        said = " ".join(action.lower().split())
        if said not in ACTIONS:
            return Step(observation="No: unknown", errors=Errors(parameter=True))
        before = self._state()
        self._seen, reward, ended, cut, _ = self._env.step(ACTIONS.index(said))
        moved = self._state() != before
        fulfilled = bool(ended) and float(reward) > 0
        return Step(
            observation=self._view() if moved or fulfilled else "No: nothing happens",
            done=bool(ended or cut),
            progress=float(fulfilled),
            errors=Errors(logic=not moved and not fulfilled),
        )

    def admissible(self) -> list[str]:
        return ["turn left", "turn right", *(["move forward"] if self._free() else [])]

    def mistake(self, draw: random.Random) -> tuple[str, str]:
        return "drop it", "drop" if self._grid().carrying is None else "fly"

    def close(self) -> None:
        self._env.close()

    def _grid(self) -> Any:
        return self._env.unwrapped

    def _free(self) -> bool:
        front = self._grid().grid.get(*self._grid().front_pos)
        return front is None or bool(front.can_overlap())

    def _state(self) -> tuple[Any, ...]:
        world = self._grid()
        carried = None if world.carrying is None else world.carrying.encode()
        return tuple(map(int, world.agent_pos)), int(world.agent_dir), carried, world.grid.encode().tobytes()

    def _view(self) -> str:
        """What the 7 x 7 view shows, as ``red ball 2 ahead 1 left``; the agent stands bottom centre."""
        names: Any = import_module("minigrid.core.constants")

        image, found = self._seen["image"], []
        for x in range(image.shape[0]):
            for y in range(image.shape[1]):
                kind, color, _ = (int(part) for part in image[x][y])
                ahead, side = image.shape[1] - 1 - y, x - image.shape[0] // 2
                if kind in (_UNSEEN, _EMPTY, _WALL) or (ahead, side) == (0, 0):
                    continue
                where = [f"{ahead} ahead"] if ahead else []
                where += [f"{abs(side)} {'left' if side < 0 else 'right'}"] if side else []
                found.append(
                    (
                        ahead + abs(side),
                        f"{names.IDX_TO_COLOR[color]} {names.IDX_TO_OBJECT[kind]} {' '.join(where)}",
                    )
                )
        carried = self._grid().carrying
        seen = ", ".join(text for _, text in sorted(found)) or "nothing"
        hand = f"; in hand: {carried.color} {carried.type}" if carried is not None else ""
        return f"see: {seen}; ahead is {'free' if self._free() else 'blocked'}{hand}"
