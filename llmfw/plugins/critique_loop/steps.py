"""Responses as steps; chains with a known error, and the critique that is true of a response to a chain.

A step is a line with something in it. A last line ``Answer: ...`` is the final answer, no step.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any

from llmfw import Row
from llmfw.core.data import (
    STEP_ERRORS,
    Chain,
    chain_of,
    first_wrong_step,
    stable_hash,
    style_of,
    wrong_step,
)

from .grammar import Block, Critique, normal

_ANSWER = re.compile(r"\s*Answer:")
_NOTHING = "(nothing)"


def step_spans(response: str) -> list[tuple[int, int]]:
    """[start, end) characters of each line that holds something, outer blanks left out; the line of the final
    answer among them.
    """
    found = []
    for line in re.finditer(r"[^\n\r]+", response):
        text = line.group()
        if text.strip():
            begin = line.start() + len(text) - len(text.lstrip())
            found.append((begin, begin + len(text.strip())))
    return found


def split(response: str) -> tuple[list[str], str | None]:
    """(the steps, the line of the final answer or None)."""
    lines = [response[begin:end] for begin, end in step_spans(response)]
    if lines and _ANSWER.match(lines[-1]):
        return lines[:-1], lines[-1]
    return lines, None


def step_of_span(response: str, begin: int, end: int) -> int | None:
    """The first step that a span of characters touches; None: none."""
    spans = step_spans(response)
    return next((at for at, (start, stop) in enumerate(spans) if start < end and begin < stop), None)


def located(critique: Critique, response: str) -> int | None:
    """The step of the response that the critique's first Wrong speaks of: the one in its words, of equal ones
    the nearest to its place; else the one at its place. None: it finds no error, or names no step.
    """
    place = critique.first_error
    if place is None:
        return None
    steps = [normal(response[begin:end]) for begin, end in step_spans(response)]
    words = critique.blocks[place].sentence
    same = [at for at, step in enumerate(steps) if step == words]
    if same:
        return min(same, key=lambda at: abs(at - place))
    return place if place < len(steps) else None


def wrong_steps(row: Row, response: str) -> int | None:
    """The first wrong step of a response to a chain; None: none, its final answer may be wrong all the same.

    Raises:
        LlmfwError: NO-CHAIN, the row's steps aren't known.
    """
    steps, _ = split(response)
    return first_wrong_step(row, steps or [_NOTHING])


def true_critique(row: Row, response: str, *, explain: str = "step", after_error: str = "stop") -> Critique:
    """What is true of a response to a chain, step by step.

    Args:
        explain: ``step``: a wrong step's explanation is the right one; ``none``: there's no explanation.
        after_error: ``stop``: the first wrong step is the last block; ``go_on``: later ones are labelled too,
            each by what stands in its place in the true solution.

    Raises:
        LlmfwError: NO-CHAIN, the row's steps aren't known.
    """
    chain = chain_of(row)
    truth = chain.steps(style_of(row))
    steps, answer = split(response)
    told = steps or [answer or _NOTHING]
    blocks: list[Block] = []
    for at, step in enumerate(told):
        right = at < len(truth) and first_wrong_step(row, [*truth[:at], step]) is None
        why = "" if right or explain == "none" else (truth[at] if at < len(truth) else "no step is left")
        blocks.append(Block(normal(step), right, why))
        if not right and after_error == "stop":
            break
    solved = answer is not None and first_wrong_step(row, [*truth, answer]) is None
    why = ""
    if not solved and explain == "step" and all(block.correct for block in blocks):
        why = truth[len(blocks)] if len(blocks) < len(truth) else f"Answer: {chain.result}"
    return Critique(tuple(blocks), solved, why)


def noisy_critique(
    row: Row,
    response: str,
    *,
    miss: float,
    alarm: float,
    place: float,
    seed: object,
    explain: str = "step",
    after_error: str = "stop",
) -> Critique:
    """The true critique, wrong at these rates: ``miss`` of the wrong responses pass for right, ``alarm`` of
    the right ones are called wrong at some step, ``place`` of the errors found are put at another step (where
    there are several). The same response of the same row is always criticised alike.
    """
    true = true_critique(row, response, explain=explain, after_error=after_error)
    draw = random.Random(stable_hash("noisy critic", seed, str(row["id"]), response))
    chance = draw.random()
    steps = [normal(step) for step in split(response)[0]] or [true.blocks[0].sentence]
    if true.correct and true.first_error is None:
        return _said(steps, draw.randrange(len(steps)), explain) if chance < alarm else true
    if chance < miss:
        return Critique(tuple(Block(step, True) for step in steps), True)
    others = [at for at in range(len(steps)) if at != true.first_error]
    if true.first_error is not None and others and draw.random() < place:
        return _said(steps, draw.choice(others), explain)
    return true


def _said(steps: Sequence[str], at: int, explain: str) -> Critique:
    """A critique that calls step ``at`` wrong, without knowing better."""
    blocks = [Block(step, True) for step in steps[:at]]
    return Critique((*blocks, Block(steps[at], False, steps[at] if explain == "step" else "")), False)


def injected(row: Row, seed: object) -> tuple[list[str], int, str]:
    """(the lines up to and with a wrong step, its index, its kind): the place and kind are drawn by hashes.

    Raises:
        LlmfwError: NO-CHAIN, the row's steps aren't known.
    """
    chain, style = chain_of(row), style_of(row)
    at = stable_hash("place", seed, str(row["id"])) % len(chain.operations)
    kind = STEP_ERRORS[stable_hash("kind", seed, str(row["id"])) % len(STEP_ERRORS)]
    lines = [*chain.steps(style)[:at], wrong_step(chain, at, seed, kind, style)]
    return lines, at, kind


def flawed_response(row: Row, seed: object) -> tuple[str, int]:
    """(a response with one wrong step and everything behind it calculated from its result, its index)."""
    lines, at, _ = injected(row, seed)
    chain = chain_of(row)
    value = int(lines[-1].rpartition("=")[2])
    rest = Chain(value, chain.operations[at + 1 :])
    return "\n".join([*lines, *rest.steps(style_of(row)), f"Answer: {rest.result}"]), at


def question_of(prompt: Any) -> list[dict[str, Any]]:
    """A prompt as messages."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(one) for one in prompt]
