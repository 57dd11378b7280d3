"""Judges that are wrong about what is known judge nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from llmfw.core.errors import CanaryError, LlmfwError, PluginError
from llmfw.core.records import Row, Verdict
from llmfw.core.verifiers.canaries import Checked, checked
from llmfw.core.verifiers.number import build as number

ROWS = [{"id": f"q{index}", "prompt": f"{index} + 1?", "answer": str(index + 1)} for index in range(8)]


class Judge:
    """Says what a function says, and notes what it was asked; without canaries of its own."""

    def __init__(self, says: Callable[[Row, str], Any]) -> None:
        self.says = says
        self.asked: list[tuple[str, str]] = []

    def verify(self, rows: Sequence[Row], responses: Sequence[str]) -> list[Any]:
        self.asked += [(row["id"], said) for row, said in zip(rows, responses, strict=True)]
        return [self.says(row, said) for row, said in zip(rows, responses, strict=True)]


def right(row: Row, said: str) -> Verdict:
    return Verdict(status="right" if said.endswith(row["answer"]) else "wrong")


def test_canaries_are_judged_with_every_batch_and_are_not_handed_on():
    judge = Judge(right)
    told = Checked(judge, "mine").verify(ROWS[:2], ["1", "5"])
    assert [verdict.status for verdict in told] == ["right", "wrong"]
    row, gold = judge.asked[2]
    assert gold == f"Answer: {int(row[1:]) + 1}" and judge.asked[3] == (row, "") and len(judge.asked) == 4


def test_a_judge_that_says_right_to_everything_is_stopped():
    with pytest.raises(CanaryError, match="'mine' judged '', which is wrong, to be right") as caught:
        Checked(Judge(lambda row, said: Verdict(status="right")), "mine").verify(ROWS[:1], ["1"])
    assert "row q0" in str(caught.value) and isinstance(caught.value, LlmfwError)


@pytest.mark.parametrize("status", ["wrong", "unparsed"])
def test_a_judge_that_says_no_to_the_rows_own_answer_is_stopped(status: Any):
    with pytest.raises(CanaryError, match=f"'Answer: 1', which is right, to be {status}"):
        Checked(Judge(lambda row, said: Verdict(status=status)), "mine").verify(ROWS[:1], ["1"])


def test_a_canary_that_could_not_be_judged_proves_nothing():
    def fails(row: Row, said: str) -> Verdict:
        return Verdict(status="failed") if said.startswith("Answer") else right(row, said)

    assert Checked(Judge(fails), "mine").verify(ROWS[:1], ["1"])[0].right


def test_a_judge_that_fails_on_everything_is_stopped():
    judge = Checked(Judge(lambda row, said: Verdict(status="failed")), "mine")
    with pytest.raises(CanaryError, match="failed on every response"):
        judge.verify(ROWS, ["1"] * 8)


def test_a_verifiers_own_canaries_are_taken():
    judge = Checked(number(), "number")
    assert judge.canaries(ROWS[0]) == [("Answer: 1", True), ("Answer: 2", False)]
    assert [one.status for one in judge.verify(ROWS[:2], ["Answer: 1", ""])] == ["right", "unparsed"]


def test_equal_responses_to_one_row_are_judged_once():
    judge = Judge(right)
    told = Checked(judge, "mine").verify([ROWS[0]] * 3 + [ROWS[1]] * 2, ["1", "1", "2", "2", "2"])
    assert [verdict.right for verdict in told] == [True, True, False, True, True]
    assert len(judge.asked) == 3 + 2


def test_the_row_of_the_canaries_depends_on_the_batch_alone():
    def chosen(rows: Sequence[Row], responses: Sequence[str]) -> str:
        judge = Judge(right)
        Checked(judge, "mine").verify(rows, responses)
        return judge.asked[-1][0]

    first = [chosen(ROWS, [str(number)] * 8) for number in range(20)]
    assert first == [chosen(ROWS, [str(number)] * 8) for number in range(20)] and len(set(first)) > 3


def test_an_empty_batch_has_no_canaries():
    judge = Judge(right)
    assert Checked(judge, "mine").verify([], []) == [] and judge.asked == []


def test_as_many_verdicts_as_responses_are_wanted():
    with pytest.raises(PluginError, match="'mine'"):
        Checked(Judge(lambda row, said: said == row["answer"]), "mine").verify(ROWS[:1], ["1"])
    with pytest.raises(ValueError, match="2 rows and 1 responses"):
        Checked(Judge(right), "mine").verify(ROWS[:2], ["1"])


def test_other_attributes_are_the_verifiers_own():
    judge = Judge(right)
    assert Checked(judge, "mine").says is right
    with pytest.raises(AttributeError):
        _ = Checked(judge, "mine").nothing


def test_services_that_are_no_verifiers_stay_as_they_are():
    thing = object()
    assert checked("Rater", "mine", thing) is thing
    once = checked("Verifier", "mine", Judge(right))
    assert isinstance(once, Checked) and checked("Verifier", "mine", once) is once
    with pytest.raises(PluginError, match="object, offered as the Verifier 'mine', has no method verify"):
        checked("Verifier", "mine", thing)
