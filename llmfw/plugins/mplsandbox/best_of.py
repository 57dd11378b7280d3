"""Best-of-N: of several programs the one that the visible tests like best."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .executor import Sandbox
from .records import Request, Result
from .verdicts import ORDER


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which program was taken: its place among the candidates, and what became of each."""

    index: int
    results: tuple[Result, ...]


def best_of(sandbox: Sandbox, candidates: Sequence[str], request: Request) -> Choice:
    """Run every candidate against the request's tests and take the best.

    Best is: most tests passed, then the milder verdict, then the program that was written most often, then
    the first. ``request.code`` is replaced by each candidate.

    Raises:
        ValueError: there's no candidate.
    """
    if not candidates:
        raise ValueError("there are no candidates to choose from")
    results = tuple(sandbox.run_many(replace(request, code=code) for code in candidates))
    often = Counter(code.strip() for code in candidates)

    def merit(index: int) -> tuple[float, int, int, int]:
        result = results[index]
        return (
            result.pass_rate,
            -ORDER.index(result.verdict),
            often[candidates[index].strip()],
            -index,
        )

    return Choice(index=max(range(len(candidates)), key=merit), results=results)
