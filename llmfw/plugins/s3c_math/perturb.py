"""Steps that are wrong on purpose, without any sampling. Plain Python."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from llmfw.core.data import STEP_ERRORS, Chain, chain_of, stable_hash, style_of, wrong_step

from .annotate import is_chain
from .quantities import last_number
from .segments import normal

_RESULT = re.compile(r"=\s*(-?\d+)\s*$")


def perturbed(row: Mapping[str, Any], steps: Sequence[str], at: int, seed: object, count: int) -> list[str]:
    """Up to ``count`` different wrong versions of step ``at``: of a chain by calculation, carry or operation
    in turn (``llmfw.core.data.wrong_step``), elsewhere the step's last number is off by a little; none where
    it has no number.
    """
    found: dict[str, str] = {}
    for draw in range(4 * count):
        if is_chain(row):
            kind = STEP_ERRORS[stable_hash("kind", seed, row["id"], at, draw) % len(STEP_ERRORS)]
            made = wrong_step(chain_of(row), at, (seed, draw), kind, style_of(row))
        else:
            made = _slipped(steps[at], stable_hash("slip", seed, row["id"], at, draw))
        if normal(made) != normal(steps[at]):
            found.setdefault(normal(made), made)
        if len(found) == count:
            break
    return list(found.values())


def _slipped(step: str, drawn: int) -> str:
    found = last_number(step)
    return step if found is None else step[: found.start] + found.slipped(drawn) + step[found.stop :]


def carried_on(row: Mapping[str, Any], at: int, wrong: str) -> list[str]:
    """How an attempt goes on that doesn't notice the wrong step ``at``: the chain's other operations from the
    wrong value, and the answer that comes of it. Where no value can be read (no chain, no result) nothing.
    """
    said = _RESULT.search(wrong)
    if not is_chain(row) or said is None:
        return []
    rest = Chain(int(said[1]), chain_of(row).operations[at + 1 :])
    return [*rest.steps(style_of(row)), f"Answer: {rest.result}"]
