"""The verifier ``number``: exact numbers, and words."""

from __future__ import annotations

import pytest

from llmfw.core.errors import DataError
from llmfw.core.verifiers.by_answer import ByAnswer
from llmfw.core.verifiers.number import build
from llmfw.core.verifiers.value import with_unit

VERIFIER: ByAnswer = build()

CASES = [
    ("72", "She sold 48 and 24.\nAnswer: 72", "right"),
    ("72", "She sold 48 and 24.\n#### 72", "right"),
    ("72", "The answer is 48... no, the answer is 72.", "right"),
    ("72", "Answer: 72\nWait.\nAnswer: 48", "wrong"),
    ("1/2", "Answer: 0.50", "right"),
    ("0.3", "Answer: 3/10", "right"),
    ("1/3", "Answer: 0.333", "wrong"),
    ("1,000", "Answer: 1000", "right"),
    ("1000", "\\boxed{1,000}", "right"),
    ("18", "Answer: $18", "right"),
    ("18", "Answer: \\$18.00", "right"),
    ("18", "Answer: 18 dollars per day", "right"),
    ("18", "Answer: x = 18", "right"),
    ("18", "Answer: 18%", "right"),
    ("12 cm", "Answer: 12", "right"),
    ("12 cm", "Answer: 12 m", "wrong"),
    ("12 cm", "Answer: 12 centimetres", "right"),
    ("3", "Answer: 3 million", "wrong"),
    ("2", "Answer: 2xy", "wrong"),
    ("2", "Answer: 2 or 3", "wrong"),
    ("-7", "Answer: \N{MINUS SIGN}7", "right"),
    ("Paris", "Answer: paris.", "right"),
    ("Paris", "Answer: Rome", "wrong"),
    ("Yes", "Answer: Yes, because it's even", "right"),
    ("Yes", "Answer: No", "wrong"),
    ("5", "", "unparsed"),
    ("5", "Let me think about it for a while, and then again.", "unparsed"),
    ("5", "5", "right"),
    ("9" * 40, "Answer: " + "9" * 40, "right"),
    ("9" * 40, "Answer: " + "9" * 39 + "8", "wrong"),
    ("5", "Answer: " + "9" * 5000, "wrong"),
    ("1 2\n3 4", "So:\nAnswer: 1 2\n3 4", "right"),
    ("1 2\n3 4", "So:\nAnswer: 1 2\n3 5", "wrong"),
]


@pytest.mark.parametrize(("gold", "response", "wanted"), CASES)
def test_answers_are_compared_as_numbers_or_words(gold: str, response: str, wanted: str):
    (verdict,) = VERIFIER.verify([{"prompt": "?", "answer": gold}], [response])
    assert verdict.status == wanted
    assert verdict.score == float(wanted == "right") and verdict.right == (wanted == "right")


@pytest.mark.parametrize("gold", ["72", "1/2", "12 cm", "$3", "Paris", "x = 4", "1 2\n3 4", "-0.5"])
def test_what_is_known_of_a_row_is_judged_so(gold: str):
    row = {"prompt": "?", "answer": gold}
    for response, right in VERIFIER.canaries(row):
        assert VERIFIER.verify([row], [response])[0].right == right


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("12 cm", ("12", "centimeter")),
        ("12\\text{ cm}^2", ("12", "cm 2")),
        ("30^\\circ", ("30", "degree")),
        ("50\\%", ("50", "percent")),
        ("€5", ("5", "euro")),
        ("\\frac{1}{2} hours", ("\\frac{1}{2}", "hour")),
        ("5x", ("5x", "")),
        ("12 million", ("12 million", "")),
        ("2\\pi", ("2\\pi", "")),
        ("5 m", ("5 m", "")),
    ],
)
def test_a_unit_is_told_from_an_unknown(text: str, wanted: tuple[str, str]):
    assert with_unit(text) == wanted


def test_a_row_without_an_answer_is_an_error_that_names_it():
    with pytest.raises(DataError, match="row q7 has no answer"):
        VERIFIER.verify([{"id": "q7", "prompt": "?"}], ["5"])
