"""The verifier ``option``: letters, and options' texts."""

from __future__ import annotations

from typing import Any

import pytest

from llmfw.core.errors import DataError
from llmfw.core.verifiers.option import build

VERIFIER = build()
CITIES = ["Rome", "Paris", "A dog", "Oslo"]


def row(answer: str = "B", options: Any = None) -> dict[str, Any]:
    return {
        "id": "q1",
        "prompt": "?",
        "answer": answer,
        "meta": {} if options is None else {"options": options},
    }


RESPONSES = [
    ("(A) is tempting.\nAnswer: (B)", "B"),
    ("Answer: B", "B"),
    ("Answer: B.", "B"),
    ("answer: b", "B"),
    ("Answer: **(b)** the second", "B"),
    ("Answer: Option B", "B"),
    ("The answer is option (B), since A fails.", "B"),
    ("The answer is A. No: the answer is B.", "B"),
    ("Therefore \\boxed{B}", "B"),
    ("\\boxed{\\text{(B)}}", "B"),
    ("Option A is not right. Option B is correct.", "B"),
    ("I'd go with B", "B"),
    ("The correct option is: (B)", "B"),
    ("B) the second", "B"),
    ("B", "B"),
    ("(B)", "B"),
    ("Answer: B because A is too small", "B"),
    ("Answer: B, a city", "B"),
    ("<think>Answer: A</think>Answer: B", "B"),
    ("Answer: A or B", None),
    ("Answer: both (A) and (B)", None),
    ("Answer: (A), (B)", None),
    ("Answer: A dog", None),
    ("Answer: Z", None),
    ("We look at (A) 5, (B) 6 and (C) 7 in turn, and then at the rest of them.", None),
    ("", None),
    ("A dog barked at B all night long, nobody knows why.", None),
]


@pytest.mark.parametrize(("response", "letter"), RESPONSES)
def test_the_letter_stated_last_is_the_answer(response: str, letter: str | None):
    (verdict,) = VERIFIER.verify([row()], [response])
    assert verdict.answer == letter
    assert verdict.status == {"B": "right", None: "unparsed"}.get(letter, "wrong")


@pytest.mark.parametrize(
    ("answer", "response", "wanted"),
    [
        ("Paris", "Answer: Paris", "right"),
        ("Paris", "Answer: (B)", "right"),
        ("B", "The answer is paris.", "right"),
        ("b", "Answer: Rome", "wrong"),
        ("C", "Answer: A dog", "right"),
        ("A", "Answer: A dog", "wrong"),
        ("D", "Answer: Berlin", "unparsed"),
        ("D", "Answer: E", "unparsed"),
    ],
)
def test_an_options_text_counts_as_its_letter(answer: str, response: str, wanted: str):
    for options in (CITIES, dict(zip("abcd", CITIES))):
        assert VERIFIER.verify([row(answer, options)], [response])[0].status == wanted


@pytest.mark.parametrize(("answer", "options"), [("B", None), ("J", None), ("Oslo", CITIES), ("A", ["only"])])
def test_what_is_known_of_a_row_is_judged_so(answer: str, options: Any):
    for response, right in VERIFIER.canaries(row(answer, options)):
        assert VERIFIER.verify([row(answer, options)], [response])[0].right == right


def test_an_answer_that_is_no_option_is_an_error():
    with pytest.raises(DataError, match="the answer 'Berlin' is no option's letter or text"):
        VERIFIER.verify([row("Berlin", CITIES)], ["Answer: A"])
    with pytest.raises(DataError, match=r"meta\.options"):
        VERIFIER.verify([row("B", "Rome, Paris")], ["Answer: A"])
