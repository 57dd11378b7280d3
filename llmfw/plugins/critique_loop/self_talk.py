"""Self-talk: error, critique and correction as one answer. The paper's prompts for smoothing it aren't known:
this is the rigid chain (arXiv 2411.16579, as told by others).
"""

from __future__ import annotations

from .grammar import Critique
from .steps import located, step_spans


def self_talk(response: str, critique: Critique, refined: str) -> str | None:
    """The response up to its first wrong step, that step, what the critique says of it, and the refinement
    from there on; None where the critique locates no error, or the refinement ends before its place.
    """
    at, place = located(critique, response), critique.first_error
    if at is None or place is None:
        return None
    lines = [response[begin:end] for begin, end in step_spans(response)]
    again = [refined[begin:end] for begin, end in step_spans(refined)]
    if len(again) <= at:
        return None
    why = critique.blocks[place].explanation
    said = f"Wait, that step is wrong{f': {why}' if why else ''}."
    return "\n".join([*lines[: at + 1], said, *again[at:]])
