"""Rewards made of verdicts."""

from __future__ import annotations

from collections.abc import Sequence

from llmfw.core.records import Row, Verdict, Verifier


class VerdictReward:
    """1 for a right response, 0 for a wrong or unparsed one, None where the judge failed.

    Args:
        partial: a wrong response gets the score of its verdict instead of 0.
    """

    def __init__(self, verifier: Verifier, partial: bool = False) -> None:
        self.verifier = verifier
        self.partial = partial

    def rewards(self, rows: Sequence[Row], responses: Sequence[str]) -> list[float | None]:
        """One reward a response; response i answers row i."""
        return [self._reward(verdict) for verdict in self.verifier.verify(rows, responses)]

    def _reward(self, verdict: Verdict) -> float | None:
        if verdict.status == "failed":
            return None
        return 1.0 if verdict.right else verdict.score if self.partial else 0.0
