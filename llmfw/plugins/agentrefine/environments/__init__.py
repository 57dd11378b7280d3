"""Worlds in which episodes are played, through one small interface.

``open_suites`` builds the environments of a name: ``held_in``, ``held_out``, ``perturbed`` and ``forced`` are
houses of the scripted world, ``scienceworld:TASK`` and ``babyai:LEVEL`` are other people's simulators, loaded
when they're asked for.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Protocol

from ..records import EnvironmentProblem, Errors


@dataclass(frozen=True, kw_only=True)
class Step:
    """What an action brought. ``progress`` lies in [0, 1]; ``errors``: what was wrong with the action."""

    observation: str
    done: bool = False
    progress: float = 0.0
    errors: Errors = field(default_factory=Errors)


class Environment(Protocol):
    """One world in which one episode at a time is played. Success is an episode that ends (``done``) with
    progress 1.
    """

    name: str

    def reset(self, seed: int) -> str:
        """Begin the episode of a seed. -> What the player is told first: goal, actions, where it is."""

    def step(self, action: str) -> Step:
        """Do an action, given as text; one that isn't understood is an error, never an exception."""

    def admissible(self) -> list[str]:
        """Actions that would be no errors now; perhaps not all."""

    def mistake(self, draw: random.Random) -> tuple[str, str]:
        """(thought, action) that fails now."""

    def close(self) -> None:
        """Let processes go."""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Environments with the seed of the episode that each plays, under the name that metrics have."""

    name: str
    worlds: Sequence[tuple[Environment, int]]
    forced: bool = False
    """Whether the first action is a mistake that the harness makes."""
    perturbed: bool = False
    """Whether it's one of the perturbations of the same episodes."""


def names_of(names: str) -> list[str]:
    """The environments that a setting names; nothing is loaded.

    Raises:
        EnvironmentProblem: an unknown name, a package or Java that isn't there.
    """
    found = [name.strip() for name in names.split(",") if name.strip()]
    for name in found:
        kind, _, argument = name.partition(":")
        outside = kind in _OUTSIDE
        if (outside and not argument) or (not outside and name not in SCRIPTED):
            raise EnvironmentProblem(
                "ENVIRONMENT",
                f"{name!r} is no environment",
                mend=f"use {', '.join(SCRIPTED)}, scienceworld:TASK (e.g. scienceworld:find-plant) or "
                "babyai:LEVEL (e.g. babyai:GoToRedBallGrey)",
                key="agentrefine.environments",
            )
        if outside:
            _OUTSIDE[kind]()
    return found


def needs_scienceworld() -> None:
    """Raise EnvironmentProblem where ScienceWorld can't run."""
    _needs_package("scienceworld", "ScienceWorld")
    if shutil.which("java") is None:
        raise EnvironmentProblem(
            "ENVIRONMENT-MISSING", "ScienceWorld needs Java (1.8 or later), and there's none",
            mend="install a Java runtime, e.g. the package default-jre-headless",
            key="agentrefine.environments",
        )  # fmt: skip


def needs_babyai() -> None:
    """Raise EnvironmentProblem where MiniGrid isn't installed."""
    _needs_package("minigrid", "MiniGrid")


def _needs_package(package: str, called: str) -> None:
    if find_spec(package) is None:
        raise EnvironmentProblem(
            "ENVIRONMENT-MISSING", f"{called} isn't installed", mend="pip install 'llmfw[environments]'",
            key="agentrefine.environments",
        )  # fmt: skip


SCRIPTED = ("held_in", "held_out", "perturbed", "forced")
"""Suites of the scripted world."""
_OUTSIDE: Mapping[str, Callable[[], None]] = {"scienceworld": needs_scienceworld, "babyai": needs_babyai}
"""Kind of other people's simulators -> what raises where it can't run."""


def rehearse(names: str) -> None:
    """Open each simulator of a setting that isn't ours, and close it: a task or level that it doesn't have is
    told before hours of training.

    Raises:
        EnvironmentProblem: as of ``open_suites``.
    """
    outside = [name for name in names_of(names) if name not in SCRIPTED]
    close(open_suites(",".join(outside), 1, None))


def close(suites: Sequence[Suite]) -> None:
    """Let go of all worlds of suites, each once."""
    for world in {id(world): world for suite in suites for world, _ in suite.worlds}.values():
        world.close()


def open_suites(names: str, episodes: int, options: object) -> list[Suite]:
    """The suites of a setting, ``episodes`` each. ``options``: of ``scripted-world``.

    Raises:
        EnvironmentProblem: an unknown name, a package or Java that isn't there.
    """
    from . import scripted

    found: list[Suite] = []
    for name in names_of(names):
        kind, _, argument = name.partition(":")
        if kind in SCRIPTED:
            found += scripted.suites(kind, episodes, options)
        elif kind == "scienceworld":
            from .science import ScienceWorld

            world = ScienceWorld(argument)
            found.append(Suite(name=name.replace(":", "-"), worlds=_in_turn(world, episodes)))
        else:
            from .babyai import BabyAi

            found.append(
                Suite(
                    name=name.replace(":", "-"),
                    worlds=[(BabyAi(argument), seed) for seed in range(episodes)],
                )
            )
    return found


def _in_turn(world: Environment, episodes: int) -> list[tuple[Environment, int]]:
    """One simulator, whose episodes can't be played side by side."""
    return [(world, seed) for seed in range(episodes)]
