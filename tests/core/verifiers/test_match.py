from __future__ import annotations

from fractions import Fraction

import pytest

from llmfw.core.verifiers.match import answer_line, final_answer, matches, number_of


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("It  is\n 7 ", "it is 7"),
        ("1,000", "1000"),
        ("$0.50$.", "1/2"),
        ("2/4", ".5"),
        ("\N{MINUS SIGN}3", "-3.0"),
        ("STRASSE", "straße"),
    ],
)
def test_equal_words_and_equal_numbers_match(answer: str, reference: str):
    assert matches(answer, reference) and matches(reference, answer)


@pytest.mark.parametrize(
    ("answer", "reference"), [("7 apples", "7"), ("1/0", "1/0.0"), ("1,00", "100"), ("", "0"), ("x = 7", "7")]
)
def test_other_words_and_other_numbers_do_not(answer: str, reference: str):
    assert not matches(answer, reference)


def test_a_number_is_read_exactly():
    assert number_of("0.1") == Fraction(1, 10) and number_of("-1,234.5/2") == Fraction(-2469, 4)
    assert number_of("1e5") is None and number_of("12 cm") is None


def test_the_final_answer_stands_behind_the_last_answer_that_begins_a_line():
    text = "The answer: no.\nAnswer: 3\nso we go on\n**Final answer:** 4 **\nthe end"
    assert final_answer(text) == "4"
    assert final_answer("just 5") == "just 5"
    assert final_answer("Answer:   1/2  ") == "1/2"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Answer:\n\n5\n", "5"),
        ("Answer:\n$$\n5\n$$", "5"),
        ("Answer: 3\nAnswer:", "3"),
        ("Answer:\nAnswer: 5", "5"),
        ("## Final Answer: x", "x"),
        ("My answer: 3", None),
        ("", None),
    ],
)
def test_an_answer_may_begin_on_the_next_line(text: str, wanted: str | None):
    assert answer_line(text) == wanted


def test_the_rest_of_a_text_is_kept_line_by_line():
    assert answer_line("So.\nAnswer: 1 2\n3 4\n", whole=True) == "1 2\n3 4"
    assert answer_line("So.", whole=True) is None


def test_a_text_of_a_million_signs_is_read_in_one_pass():
    assert final_answer("*" * 1_000_000) == "*" * 1_000_000
    assert answer_line("\n" * 300_000 + "answer" + " " * 300_000 + ": 4") == "4"
    assert number_of("9" * 100_000) is None
