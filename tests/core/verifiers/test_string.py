"""The verifier ``string``: what papers compare."""

from __future__ import annotations

import pytest

from llmfw.core.verifiers.string import build

VERIFIER = build()

CASES = [
    ("72", "Answer: 72.", "right"),
    ("0.5", "Answer: 1/2", "wrong"),
    ("0.5", "Answer: 0.50", "wrong"),
    ("1,000", "Answer: 1000", "wrong"),
    ("Paris", "The answer is PARIS.", "right"),
    ("(b)", "Answer: (B) the second", "right"),
    ("(b)", "Answer: b", "wrong"),
    ("(b)", "Answer: (a) or (b)", "right"),
    ("(g)", "Answer: (g) the last", "wrong"),
    ("72", "", "unparsed"),
]


@pytest.mark.parametrize(("gold", "response", "wanted"), CASES)
def test_strings_are_equal_but_for_case_and_options_are_contained(gold: str, response: str, wanted: str):
    (verdict,) = VERIFIER.verify([{"prompt": "?", "answer": gold}], [response])
    assert verdict.status == wanted


@pytest.mark.parametrize("gold", ["72", "(b)", "(F)", "Paris", "$x$"])
def test_what_is_known_of_a_row_is_judged_so(gold: str):
    row = {"prompt": "?", "answer": gold}
    for response, right in VERIFIER.canaries(row):
        assert VERIFIER.verify([row], [response])[0].right == right
