"""What episodes were like, in numbers. Plain Python.

``success``, ``progress``: shares, means. ``invalid``: share of the actions that failed. ``unread``: share of
the replies that had no action; ``wrong``: share of the replies that are one or the other. ``cut``: share of
the replies that ended because they were as long as they may be. ``first_error``: share of the episodes whose
first own action failed. ``repeat``: of the failures that another action followed,
the share whose next action was the same again. ``recovery``: of these, the share whose next action was right.
``distinct_after``: different actions among the (at most) three that follow a failure, on average.
``diversity``: different thoughts / thoughts. ``turns``: actions per episode. What no episode can tell (no
failure, no thought) is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from .react import Act, Episode

WINDOW = 3
"""Actions behind a failure that ``distinct_after`` looks at."""


def rates(episodes: Sequence[Episode]) -> dict[str, float]:
    """The numbers of one suite; its episodes count equally in success and progress, its actions in the rest.

    A forced mistake is no action of the policy's, but a failure that its next action follows.
    """
    own = [act for one in episodes for act in one.own]
    replies = len(own) + sum(one.unread for one in episodes)
    after = [pair for one in episodes for pair in follow_ups(one.acts)]
    found = {
        "success": _mean([one.success for one in episodes]),
        "progress": _mean([one.progress for one in episodes]),
        "turns": _mean([len(one.own) for one in episodes]),
        "invalid": _mean([act.errors.any for act in own]),
        "unread": sum(one.unread for one in episodes) / replies if replies else math.nan,
        "cut": sum(one.cut for one in episodes) / replies if replies else math.nan,
        "wrong": _mean([act.errors.any for act in own] + [True] * (replies - len(own))),
        "first_error": _mean([one.own[0].errors.any for one in episodes if one.own]),
        "repeat": _mean([_same(failed, then[0]) for failed, then in after]),
        "recovery": _mean([not then[0].errors.any for _, then in after]),
        "distinct_after": _mean([len({_key(act) for act in then[:WINDOW]}) for _, then in after]),
        "diversity": diversity([act.thought for act in own]),
    }
    return {name: value for name, value in found.items() if not math.isnan(value)}


def follow_ups(acts: Sequence[Act]) -> list[tuple[Act, Sequence[Act]]]:
    """(a failed action, the actions behind it) of each failure that isn't the last action."""
    return [(acts[at], acts[at + 1 :]) for at in range(len(acts) - 1) if acts[at].errors.any]


def first_right(episodes: Sequence[Episode]) -> list[float]:
    """Of each episode: 1 where the policy's first action is right; one without any isn't (0)."""
    return [float(bool(one.own) and not one.own[0].errors.any) for one in episodes]


def first_repeats(episodes: Sequence[Episode]) -> list[float]:
    """Of each episode that begins with a forced mistake: 1 where the policy's first action is the same; one
    without any action at all repeats nothing (0).
    """
    return [
        float(bool(one.own) and _same(next(act for act in one.acts if act.forced), one.own[0]))
        for one in episodes
    ]


def diversity(thoughts: Sequence[str]) -> float:
    """Different thoughts, white space and case apart, over thoughts; NaN where there's none."""
    said = [" ".join(thought.lower().split()) for thought in thoughts if thought.strip()]
    return len(set(said)) / len(said) if said else math.nan


def spread(values: Mapping[str, float]) -> tuple[float, float]:
    """(mean, standard deviation) over perturbations, the original among them; the deviation is that of the
    population (divided by n), the convention that gives the paper's figure for its own model.
    """
    mean = sum(values.values()) / len(values)
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values.values()) / len(values))


def _same(one: Act, other: Act) -> bool:
    return _key(one) == _key(other)


def _key(act: Act) -> str:
    return " ".join(act.action.lower().split())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
