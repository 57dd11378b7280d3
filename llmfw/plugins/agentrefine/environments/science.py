"""ScienceWorld (arXiv 2203.07540) behind the adapter: its simulator in a Java process."""

from __future__ import annotations

import random
from importlib import import_module
from typing import Any, Final

from ..records import EnvironmentProblem, Errors
from . import Step, needs_scienceworld

UNKNOWN: Final = ("No known action matches that input", "Ambiguous request")
"""What the simulator says to words that it can't resolve."""
REFUSED: Final = (
    "It's not clear how", "is not moveable", "is not", "can't", "cannot", "not able to", "doesn't", "must",
    "already",
)  # fmt: skip
"""What it says, among other things, to an action that it refuses."""
_STEPS: Final = 1000


class ScienceWorld:
    """One task of ScienceWorld; a seed is the number of a test variation.

    The simulator has no error flags: they're read off its answers (``UNKNOWN`` is a parameter error,
    ``REFUSED`` a logic error), which is ours. Progress is its score / 100.

    Raises:
        EnvironmentProblem: the package or Java isn't there, or there is no such task.
    """

    def __init__(self, task: str, simplification: str = "easy") -> None:
        needs_scienceworld()
        found: Any = import_module("scienceworld")
        self.name, self.task, self.simplification = f"scienceworld:{task}", task, simplification
        self._env: Any = found.ScienceWorldEnv("", envStepLimit=_STEPS)
        known = list(self._env.get_task_names())
        if task not in known:
            self.close()
            raise EnvironmentProblem(
                "ENVIRONMENT", f"ScienceWorld has no task {task!r}", mend=f"use one of {', '.join(known)}",
                key="agentrefine.environments",
            )  # fmt: skip

    def reset(self, seed: int) -> str:
        self._env.load(self.task, 0, self.simplification)
        variations = list(self._env.get_variations_test())
        self._env.load(self.task, variations[seed % len(variations)], self.simplification)
        look, _ = self._env.reset()
        actions = [action for action in self._env.get_possible_actions() if action != "reset task"]
        task = str(self._env.get_task_description()).strip()
        return f"Goal: {task}\nActions: {', '.join(actions)}\n{str(look).strip()}"

    def step(self, action: str) -> Step:
        observation, _, done, info = self._env.step(action)
        text = str(observation).strip()
        return Step(
            observation=text,
            done=bool(done),
            progress=max(0.0, float(info["score"]) / 100),
            errors=Errors(parameter=text.startswith(UNKNOWN), logic=refused(text)),
        )

    def admissible(self) -> list[str]:
        return list(self._env.get_valid_action_object_combinations())

    def mistake(self, draw: random.Random) -> tuple[str, str]:
        thing = f"thing {draw.randint(100, 999)}"
        return f"I need {thing}", f"pick up {thing}"

    def gold(self, seed: int) -> list[str]:
        """The simulator's own way to the goal of an episode."""
        self._env.load(self.task, 0, self.simplification)
        variations = list(self._env.get_variations_test())
        self._env.load(
            self.task, variations[seed % len(variations)], self.simplification, generateGoldPath=True
        )
        return list(self._env.get_gold_action_sequence())

    def close(self) -> None:
        env, self._env = self._env, None
        if env is not None:
            env.close()


def refused(text: str) -> bool:
    """Whether an answer of a single line says that the action isn't possible now."""
    return "\n" not in text and not text.startswith(UNKNOWN) and any(part in text for part in REFUSED)
