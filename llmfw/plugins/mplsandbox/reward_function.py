"""Rewards of a batch of completions, for whatever trains on rewards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from .executor import Sandbox
from .identify import identify
from .records import Request
from .verdicts import REWARDS, reward

Shape = Literal["levels", "binary", "interpolated"]


def program_in(answer: str) -> str:
    """The program in a model's answer: what stands in its fence, or all of it."""
    return identify(answer).code


def compute_rewards(
    sandbox: Sandbox,
    completions: Sequence[str],
    requests: Sequence[Request],
    *,
    shape: Shape = "levels",
    by_language: Mapping[str, Callable[[float], float]] | None = None,
) -> list[float | None]:
    """One reward per completion; None where the sandbox failed: such a sample is to be dropped.

    Args:
        completions: models' answers; the program is taken out of each.
        requests: the tests of each; their code is replaced.
        shape: as of ``verdicts.reward``.
        by_language: a function of the reward for some languages.

    Raises:
        ValueError: completions and requests aren't as many.
    """
    if len(completions) != len(requests):
        raise ValueError(f"{len(completions)} completions and {len(requests)} requests")
    asked = (replace(request, code=program_in(text)) for text, request in zip(completions, requests))
    found = []
    for result in sandbox.run_many(asked):
        value = reward(result, shape=shape, levels=REWARDS)
        shaping = (by_language or {}).get(result.lang)
        found.append(shaping(value) if shaping is not None and value is not None else value)
    return found


def reward_function(
    sandbox: Sandbox, requests: Callable[[Mapping[str, Any]], Request], *, shape: Shape = "levels"
) -> Callable[..., list[float | None]]:
    """A function ``(prompts, completions, **columns) -> rewards`` as trainers of the TRL family call it.

    Args:
        requests: one row's columns -> its tests.
    """

    def rewards(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        texts = [one if isinstance(one, str) else one[-1]["content"] for one in completions]
        lists = {
            key: value for key, value in columns.items()
            if isinstance(value, list) and len(value) == len(texts)
        }  # fmt: skip
        rows = [{key: value[at] for key, value in lists.items()} for at in range(len(texts))]
        return compute_rewards(sandbox, texts, [requests(row) for row in rows], shape=shape)

    return rewards
