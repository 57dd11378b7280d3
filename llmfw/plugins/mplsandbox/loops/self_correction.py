"""Self-correction: a policy reads what became of its program, and writes another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..executor import Sandbox
from ..feedback import correction_prompt
from ..records import Request, Result
from ..reward_function import program_in


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One program of a loop, and what became of it."""

    prompt: str
    answer: str
    code: str
    result: Result


def self_correct(
    policy: Any,
    sandbox: Sandbox,
    prompts: Sequence[str],
    requests: Sequence[Request],
    *,
    rounds: int = 2,
    sampling: Mapping[str, Any] | None = None,
) -> list[list[Attempt]]:
    """Let a policy solve each prompt, and correct what failed, at most ``rounds`` times.

    Args:
        policy: of ``llmfw``: local, scripted or an endpoint.
        requests: the visible tests of each prompt; their code is replaced.
        sampling: settings of its ``generate``.

    Returns:
        The attempts of each prompt, in order; the last one is its solution. One that passes isn't tried
        again.
    """
    attempts: list[list[Attempt]] = [[] for _ in prompts]
    waiting = dict(enumerate(prompts))
    for _ in range(rounds + 1):
        if not waiting:
            break
        answers = policy.generate(list(waiting.values()), **(sampling or {}))
        codes = [program_in(answer.text) for answer in answers]
        asked = [replace(requests[at], code=code) for at, code in zip(waiting, codes)]
        after: dict[int, str] = {}
        for (at, prompt), answer, code, result in zip(
            waiting.items(), answers, codes, sandbox.run_many(asked), strict=True
        ):
            attempts[at].append(Attempt(prompt=prompt, answer=answer.text, code=code, result=result))
            if result.verdict not in ("OK", "IE"):
                after[at] = correction_prompt(prompts[at], code, result)
        waiting = after
    return attempts
