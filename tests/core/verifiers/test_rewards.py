"""Verdicts as rewards."""

from __future__ import annotations

from collections.abc import Sequence

from llmfw import Reward, VerdictReward, Verifier
from llmfw.core.records import Row, Verdict

VERDICTS = [
    Verdict(status="right", score=1.0),
    Verdict(status="wrong", score=0.25),
    Verdict(status="unparsed"),
    Verdict(status="failed", score=0.5),
    Verdict(status="right"),
]


class Said:
    def verify(self, rows: Sequence[Row], responses: Sequence[str]) -> list[Verdict]:
        return VERDICTS


def test_right_is_one_and_what_was_not_judged_is_dropped():
    reward = VerdictReward(Said())
    assert reward.rewards([{}] * 5, [""] * 5) == [1.0, 0.0, 0.0, None, 1.0]
    assert isinstance(reward, Reward) and isinstance(Said(), Verifier)


def test_partial_credit_is_given_where_it_is_asked_for():
    assert VerdictReward(Said(), partial=True).rewards([{}] * 5, [""] * 5) == [1.0, 0.25, 0.0, None, 1.0]
