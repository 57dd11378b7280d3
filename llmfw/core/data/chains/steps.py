"""Whether a response's lines are a chain's steps, and steps that are wrong in a known way."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, get_args

from llmfw.core.data.chains.chain import SIGNS, Chain, Style, chain_of, step_line
from llmfw.core.data.order import stable_hash

StepError = Literal["calculation", "carry", "operation"]
STEP_ERRORS: Final[tuple[StepError, ...]] = get_args(StepError)
_NUMBER = "-?(?:0|[1-9][0-9]*)"
_STEP: Final = re.compile(rf"\s*({_NUMBER})\s*([-+*])\s*({_NUMBER})\s*=\s*({_NUMBER})\s*")
_ANSWER: Final = re.compile(rf"\s*Answer:\s*({_NUMBER})\s*")
_SLIPS: Final = (-10, -3, -2, -1, 1, 2, 3, 10)
"""By how much a number is off: slips of a digit's value, and of a carry into the tens."""


def first_wrong_step(row: Mapping[str, Any], response_lines: Sequence[str] | str) -> int | None:
    """The index (from 0) of the first line that isn't the step of its place in the row's chain; None: all
    lines are right as far as they go, which a response that stops early may be.

    A line is wrong by its result, by another operand or operation, by a value carried over wrongly, or
    because it's no step at all; white space doesn't count. Behind the last step stands ``Answer: RESULT``.
    """
    lines = response_lines.splitlines() if isinstance(response_lines, str) else response_lines
    chain = chain_of(row)
    before = [chain.start, *chain.values]
    for index, line in enumerate(lines):
        if index < len(chain.operations):
            right = (str(before[index]), *map(str, chain.operations[index]), str(before[index + 1]))
            found = _STEP.fullmatch(line)
        else:
            right = (str(chain.result),)
            found = _ANSWER.fullmatch(line) if index == len(chain.operations) else None
        if found is None or found.groups() != right:
            return index
    return None


def wrong_step(chain: Chain, index: int, seed: object, kind: StepError, style: Style = "compact") -> str:
    """Step ``index`` (from 0) of a chain with an error of this kind; never the right step, and below 0 only
    where the chain is.

    ``calculation``: the right operands, another result. ``carry``: another value than the step before gave
    (or the problem starts with), calculated with rightly. ``operation``: another sign, calculated rightly.
    The same chain, index, kind and seed give the same line. Where there's a choice no number has more digits
    than the chain's longest, and another operation has another result, so that neither gives the error away.

    Raises:
        IndexError: the chain has no such step.
        ValueError: no error is called that.
    """
    if not 0 <= index < len(chain.operations):
        raise IndexError(f"step {index} of {len(chain.operations)}")
    if kind not in STEP_ERRORS:
        raise ValueError(f"{kind!r} is none of {', '.join(STEP_ERRORS)}")
    left = [chain.start, *chain.values][index]
    sign, right = chain.operations[index]
    result = SIGNS[sign](left, right)
    if kind == "calculation":
        steps = [(left, sign, right, result + slip) for slip in _SLIPS]
    elif kind == "carry":
        steps = [(left + slip, sign, right, SIGNS[sign](left + slip, right)) for slip in _SLIPS]
    else:
        steps = [(left, other, right, SIGNS[other](left, right)) for other in SIGNS if other != sign]
    longest = max(map(_digits, (chain.start, *chain.values, *(number for _, number in chain.operations))))
    steps = _prefer(steps, lambda step: min(step[0], step[3]) >= 0)
    steps = _prefer(steps, lambda step: step[3] != result)
    steps = _prefer(steps, lambda step: max(_digits(step[0]), _digits(step[3])) <= longest)
    drawn = stable_hash("wrong step", seed, chain.prompt(), index, kind) % len(steps)
    return step_line(*steps[drawn], style)


_Step = tuple[int, str, int, int]


def _prefer(steps: list[_Step], fits: Callable[[_Step], bool]) -> list[_Step]:
    """Those that fit, or all where none does."""
    return [step for step in steps if fits(step)] or steps


def _digits(number: int) -> int:
    return len(str(abs(number)))
