"""Which turns of a dialogue are trained (arXiv 2501.01702's rule and its ablations). Plain Python.

A player's turn i is *flagged* where the turn of the game master that **follows** it says that its action was
wrong: c_i = 1 iff none of parameter_error, place_error, logic_error is set there. Kinds of player turns:
``error`` (flagged), ``refine`` (right, and the turn before it was an error), ``finish`` (right, and it ends
the episode with the goal reached), ``ok``. A last turn that repairs an error is a ``refine``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal

Kind = Literal["ok", "error", "refine", "finish"]
Arm = Literal["full", "no_refinement_loss", "no_refinement_data", "erroneous_loss"]
KINDS: Final[tuple[Kind, ...]] = ("ok", "error", "refine", "finish")

TRAINED: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "full": frozenset({"ok", "refine", "finish"}),
        "no_refinement_loss": frozenset({"ok", "finish"}),
        "no_refinement_data": frozenset({"ok", "refine", "finish"}),
        "erroneous_loss": frozenset(KINDS),
    }
)
"""Arm -> kinds of turns whose labels are trained; every other token of the text is read and not trained."""
REMOVED: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "full": frozenset(),
        "no_refinement_loss": frozenset(),
        "no_refinement_data": frozenset({"error"}),
        "erroneous_loss": frozenset(),
    }
)
"""Arm -> kinds of turns that are taken out of the text, with the observations that answer them."""
ARMS: Final[tuple[str, ...]] = tuple(TRAINED)


def kinds(flagged: Sequence[bool], *, finished: bool) -> list[Kind]:
    """The kinds of a dialogue's player turns.

    Args:
        flagged: of each player's turn, whether the game master's turn that follows it has an error flag.
        finished: whether the last turn reaches the goal.
    """
    found: list[Kind] = []
    for at, wrong in enumerate(flagged):
        repairs = at > 0 and flagged[at - 1]
        ends = finished and at == len(flagged) - 1
        found.append("error" if wrong else "refine" if repairs else "finish" if ends else "ok")
    return found


def trained(kind: str, arm: str) -> bool:
    """Whether a turn of this kind is trained in this arm."""
    return kind in TRAINED[arm]


def kept(kind: str, arm: str) -> bool:
    """Whether a turn of this kind stays in the text in this arm."""
    return kind not in REMOVED[arm]
