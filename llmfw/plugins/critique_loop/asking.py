"""What the three roles are asked: an actor answers, a critic criticises, an actor refines. A critique or a
refinement is asked for in the conversation in which the answer was given.
"""

from __future__ import annotations

from typing import Any

from llmfw import Row
from llmfw.core.data import answer_of
from llmfw.core.generation import context_length, encode_prompt, prompt_of

from .grammar import Form
from .steps import question_of

Messages = list[dict[str, Any]]

_CRITICISE = (
    "Check this solution step by step. For each step write\n"
    "Step sentence: the step\nCorrectness of the step: Correct or Wrong\nExplanation: why\n"
    "and at the end\n"
    "Correctness of the final answer: Correct or Wrong\nExplanation: why"
)
_REFINE = "Using this criticism, write the complete solution again."


def to_critic(row: Row, response: str, form: Form) -> Messages:
    """x and y, and what is wanted of a critic; in compact form a question mark says it."""
    return _behind(row, response, "?" if form == "compact" else _CRITICISE)


def to_refine(row: Row, response: str, critique: str, form: Form) -> Messages:
    """x, y and c, and what is wanted of the actor; in compact form the critique says it."""
    said = critique.strip() or "?!"
    return _behind(row, response, said if form == "compact" else f"{said}\n\n{_REFINE}")


def to_annotator(row: Row, response: str, told: int | None, kind: str | None, form: Form) -> Messages:
    """x, y, the reference, and what the construction knows of the error (its step from 1, its kind)."""
    known = [f"The reference solution is:\n{answer_of(row)}"]
    if told is not None:
        known.append(f"The first wrong step is number {told + 1}.")
    if kind is not None:
        known.append(f"It's an error of {kind}.")
    shape = "a line a step, `STEP |ok|` or `STEP |no| WHY`, stop behind the first wrong one, and end with "
    wanted = _CRITICISE if form == "paper" else f"Check this solution: {shape}`answer |ok|` or `answer |no|`."
    return _behind(row, response, "\n".join([*known, "Don't mention the reference.", wanted]))


def to_injector(row: Row, lines: list[str], kind: str) -> Messages:
    """x and the right beginning of a solution; one wrong step of a kind is wanted."""
    begun = "\n".join(lines)
    return [
        *question_of(prompt_of(row)),
        {
            "role": "user",
            "content": f"A solution begins:\n{begun}\n\nWrite only its next step, in one line, with an error "
            f"of {kind} in it, as a student might make it.",
        },
    ]


def fits(policy: Any, prompt: Messages) -> bool:
    """Whether a policy can read a prompt and still write; one without weights here is believed to."""
    try:
        room = context_length(policy.module)
    except NotImplementedError:
        return True
    return room is None or len(encode_prompt(policy.tokenizer, prompt)) < room


def _behind(row: Row, response: str, wanted: str) -> Messages:
    return [
        *question_of(prompt_of(row)),
        {"role": "assistant", "content": response},
        {"role": "user", "content": wanted},
    ]
