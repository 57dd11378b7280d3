"""Judges that are wrong about what is known judge nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from llmfw.core.errors import CanaryError, LlmfwError, PluginError
from llmfw.core.records import Row, Verdict
from llmfw.core.verifiers import build
from llmfw.core.verifiers.canaries import Checked, checked
from llmfw.core.verifiers.number import build as number
from llmfw.core.verifiers.value import opposite_of

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
    assert gold == f"Answer: {int(row[1:]) + 1}" and judge.asked[3] == (row, "")
    assert judge.asked[4] == (row, "I can't tell.") and len(judge.asked) == 5


def test_a_judge_that_says_right_to_everything_is_stopped():
    with pytest.raises(CanaryError, match="'mine' judged '', which is wrong, to be right") as caught:
        Checked(Judge(lambda row, said: Verdict(status="right")), "mine").verify(ROWS[:1], ["1"])
    assert "row q0" in str(caught.value) and isinstance(caught.value, LlmfwError)


def test_a_judge_that_says_right_to_any_words_is_stopped():
    judge = Judge(lambda row, said: Verdict(status="right" if said else "unparsed"))
    with pytest.raises(CanaryError, match='judged "I can.t tell.", which is wrong, to be right'):
        Checked(judge, "mine").verify(ROWS[:1], ["1"])


def test_words_that_the_answer_holds_are_no_known_wrong_response():
    row = {"id": "q", "prompt": "?", "answer": "I can't tell. Nobody knows."}
    assert Checked(Judge(right), "mine").canaries(row)[1:] == [("", False), ("", False)]


def test_a_judge_that_takes_the_first_answer_or_any_is_stopped():
    """It looks for the answer anywhere; the verifier's own canaries take it back."""

    class Anywhere(Judge):
        def canaries(self, row: Row) -> list[tuple[str, bool]]:
            return number().canaries(row)

    judge = Anywhere(lambda row, said: Verdict(status="right" if row["answer"] in said else "wrong"))
    with pytest.raises(CanaryError, match="That was wrong"):
        Checked(judge, "mine").verify(ROWS[:1], ["1"])


@pytest.mark.parametrize("name", ["number", "math", "string"])
@pytest.mark.parametrize(
    "gold",
    ["The answer is 5.", r"So it's \boxed{5}.", "#### 5", "x\n#### 5", "Answer: 5", "yes", "No.", "TRUE",
     "a\nb", "5 because 2 + 3 is 5", "No, it isn't", "Yes + 1", r"\boxed{", "the answer is unknown"],
)  # fmt: skip
def test_a_rows_answer_is_read_as_a_response_is(name: str, gold: str):
    row = {"id": "q", "prompt": "?", "answer": gold}
    verifier = build("Verifier", name, lambda *_: None)
    known = verifier.canaries(row)
    verdicts = verifier.verify([row] * len(known), [said for said, _ in known])
    assert [one.right for one in verdicts] == [right for _, right in known]


@pytest.mark.parametrize(
    ("gold", "other"),
    [
        ("yes", "no"),
        ("No.", "Yes"),
        ("TRUE", "FALSE"),
        ("False", "True"),
        ("No, it isn't", "Yes"),
        ("5", None),
    ],
)
def test_the_other_of_yes_and_no_is_the_opposite(gold: str, other: str | None):
    assert opposite_of(gold) == other


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
    assert judge.canaries(ROWS[0]) == [
        ("Answer: 1", True),
        ("So it's \\boxed{1}.", True),
        ("Answer: 2", False),
        ("Answer: 1\nThat was wrong.\nAnswer: 2", False),
    ]
    assert [one.status for one in judge.verify(ROWS[:2], ["Answer: 1", ""])] == ["right", "unparsed"]


def test_equal_responses_to_one_row_are_judged_once():
    judge = Judge(right)
    told = Checked(judge, "mine").verify([ROWS[0]] * 3 + [ROWS[1]] * 2, ["1", "1", "2", "2", "2"])
    assert [verdict.right for verdict in told] == [True, True, False, True, True]
    assert len(judge.asked) == 3 + 3


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
