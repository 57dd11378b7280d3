"""Episodes that a policy plays in ReAct's form, many side by side; what each was like."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..dialogue import react, react_of
from ..environments import Environment, Suite
from ..records import EnvironmentProblem, Errors

NO_ACTION = "No action found. Answer with a line Thought: and a line Action:"
"""What is said to a reply without an action; it's counted, and ``retries`` of them end the episode."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a policy says; ``cut``: it came to no end within ``generation.max_new_tokens``."""

    text: str
    cut: bool = False


Generate = Callable[[Sequence[list[dict[str, Any]]], Sequence[str]], Sequence[Reply]]
"""Message lists and their names -> replies."""


@dataclass(frozen=True, kw_only=True)
class Act:
    """One action of an episode; ``forced``: the harness made it, not the policy."""

    thought: str
    action: str
    errors: Errors
    forced: bool = False


@dataclass
class Episode:
    """An episode so far."""

    world: Environment
    seed: int
    messages: list[dict[str, Any]]
    acts: list[Act] = field(default_factory=list)
    progress: float = 0.0
    done: bool = False
    unread: int = 0
    """Replies without an action, all together."""
    cut: int = 0
    """Replies that were cut off, with an action or without."""
    in_row: int = 0
    """Replies without an action since the last one that had one."""
    stuck: bool = False
    """Whether it ended by them."""

    @property
    def success(self) -> bool:
        """Whether it ended with everything reached."""
        return self.done and self.progress >= 1.0

    @property
    def own(self) -> list[Act]:
        """The policy's actions."""
        return [act for act in self.acts if not act.forced]


def play(
    suites: Sequence[Suite], generate: Generate, *, max_turns: int, max_retries: int, draw_seed: int = 0
) -> dict[str, list[Episode]]:
    """Play suites. -> The episodes of each, in order.

    All episodes are played side by side, so that a policy answers them in large batches; those that share one
    simulator one after another. An episode ends when its world says so, after ``max_turns`` actions of the
    policy, or when more than ``max_retries`` replies in a row have no action.

    Args:
        draw_seed: of the mistakes that forced suites begin with.
    """
    found: dict[str, list[Episode]] = {suite.name: [] for suite in suites}
    uses = Counter(id(world) for suite in suites for world, _ in suite.worlds)
    places = [(suite, world, seed) for suite in suites for world, seed in suite.worlds]
    alone = [[place] for place in places if uses[id(place[1])] > 1]
    for group in [[place for place in places if uses[id(place[1])] == 1], *alone]:
        begun = [(suite, begin(world, seed, suite.forced, draw_seed)) for suite, world, seed in group]
        while live := [pair for pair in begun if _goes_on(pair[1], max_turns)]:
            names = [f"{suite.name}/{one.seed}/{len(one.messages)}" for suite, one in live]
            replies = generate([one.messages for _, one in live], names)
            for (_, episode), reply in zip(live, replies, strict=True):
                answer(episode, reply, max_retries)
        for suite, episode in begun:
            found[suite.name].append(episode)
    return found


def _goes_on(episode: Episode, max_turns: int) -> bool:
    return not episode.done and not episode.stuck and len(episode.own) < max_turns


def begin(world: Environment, seed: int, forced: bool, draw_seed: int) -> Episode:
    """A fresh episode; ``forced``: its first action is a mistake that its world knows.

    Raises:
        EnvironmentProblem: the world took the mistake for a right action.
    """
    episode = Episode(
        world=world, seed=seed, messages=[{"role": "user", "content": world.reset(seed)}]
    )  # fmt: skip
    if forced:
        thought, action = world.mistake(random.Random(f"{draw_seed}/{seed}"))
        episode.messages.append({"role": "assistant", "content": react(thought, action)})
        act(episode, thought, action, forced=True)
        if not episode.acts[-1].errors.any:
            raise EnvironmentProblem(
                "FORCED-ERROR", f"{world.name} took {action!r} for no mistake",
                mend="let mistake() of the environment give an action that fails",
            )  # fmt: skip
    return episode


def answer(episode: Episode, reply: Reply, max_retries: int) -> None:
    """Take a reply in: its action is done, or it's asked for again."""
    read = react_of(reply.text)
    episode.cut += reply.cut
    episode.messages.append({"role": "assistant", "content": reply.text if reply.text.strip() else "..."})
    if read is None:
        episode.unread += 1
        episode.in_row += 1
        episode.stuck = episode.in_row > max_retries
        episode.messages.append({"role": "user", "content": NO_ACTION})
        return
    episode.in_row = 0
    act(episode, *read)


def act(episode: Episode, thought: str, action: str, *, forced: bool = False) -> None:
    """Do an action in the episode's world, and tell the player what it brought."""
    step = episode.world.step(action)
    episode.acts.append(Act(thought=thought, action=action, errors=step.errors, forced=forced))
    episode.progress = max(episode.progress, step.progress)
    episode.done = step.done
    if step.done:  # what counts is how it ended
        episode.progress = step.progress
    episode.messages.append({"role": "user", "content": step.observation})
