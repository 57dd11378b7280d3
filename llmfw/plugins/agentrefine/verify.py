"""Which beginning of a trajectory holds, and why it isn't accepted: the start of algorithm 1 of arXiv
2501.01702 as far as it's known; what is ours stands in the README.

Turn by turn: the turn's keys are there and it's the right one's turn; an action matches a template of the
script and its arguments are declared, unless the game master's turn behind it flags it (so an action that
nobody has answered yet isn't judged yet). The beginning that holds is kept, and a generator goes on from it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from .actions import match
from .records import Script, TrajectoryError, Turn, flags_of, turn_of

Fault = Literal["json", "turn", "action", "goal", "errors"]
FAULTS: Final[tuple[Fault, ...]] = ("json", "turn", "action", "goal", "errors")
LEAST_ERRORS: Final = 2
"""Error turns, each repaired, that an accepted trajectory has at least."""


@dataclass(frozen=True, kw_only=True)
class Verified:
    """The turns that hold (a prefix of what was given), and what is wrong; ``fault`` None: accepted.

    ``json``: it can't be read. ``turn``: a turn's keys or order. ``action``: an action that nothing allows.
    ``goal``: the goal isn't reached. ``errors``: too few errors that were repaired.
    """

    turns: tuple[Turn, ...]
    fault: Fault | None = None
    about: str = ""

    @property
    def accepted(self) -> bool:
        """Whether the trajectory may be trained."""
        return self.fault is None


def read_turns(text: str) -> list[Any] | None:
    """The list of turns in a model's answer: JSON, perhaps in a code block or inside an object with the key
    ``turns`` or ``trajectory``; None where there's none.
    """
    told = _json(text)
    if told is None:  # a code block
        told = _json(text.partition("```")[2].removeprefix("json").partition("```")[0])
    if isinstance(told, dict):
        told = told.get("turns", told.get("trajectory"))
    return told if isinstance(told, list) else None


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def verify(
    script: Script, told: Sequence[Any] | None, prefix: Sequence[Turn] = (), *, least: int = LEAST_ERRORS
) -> Verified:
    """Check the turns that go on from a prefix which holds.

    Args:
        told: JSON of turns len(prefix) + 1, ...; None: the answer couldn't be read.
        prefix: turns that an earlier call has returned.
        least: errors, each with a right turn behind it, that are demanded.
    """
    if told is None:
        return Verified(turns=tuple(prefix), fault="json", about="the answer is no JSON list of turns")
    turns = list(prefix)
    for raw in told:
        try:
            turn = turn_of(raw, len(turns) + 1)
        except TrajectoryError as error:
            return Verified(turns=tuple(turns), fault="turn", about=error.what)
        if not turn.player and not turn.errors.any and len(match(turns[-1].text, script)) != 1:
            wrong = turns.pop()
            about = f"turn {wrong.number}: the action {wrong.text!r} is none of the script's with its values"
            return Verified(turns=tuple(turns), fault="action", about=about)
        turns.append(turn)
    if len(turns) % 2 or not turns or not turns[-1].completed:
        return Verified(turns=tuple(turns), fault="goal", about="the trajectory ends before the goal")
    repaired = repairs(turns)
    if repaired < least:
        about = f"{repaired} errors are made and repaired; {least} are wanted"
        return Verified(turns=tuple(turns), fault="errors", about=about)
    return Verified(turns=tuple(turns))


def repairs(turns: Sequence[Turn]) -> int:
    """How many runs of wrong actions are followed by a right one."""
    flags = flags_of(turns)
    return sum(flags[at - 1] and not flags[at] for at in range(1, len(flags)))


def next_prefix(found: Verified) -> tuple[Turn, ...]:
    """What the next attempt goes on from: what holds; nothing where the fault was too few errors, since the
    story is over.
    """
    return () if found.fault == "errors" else found.turns
