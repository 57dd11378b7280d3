"""Final answers as models state them; the last one counts."""

from __future__ import annotations

import pytest

from llmfw.core.verifiers.extract import boxed, final, plain, stated

RESPONSES = [
    ("So 3.\nAnswer: 5", "5"),
    ("Answer: 3\nWait, that's wrong.\n**Answer:** $\\frac{1}{2}$.", "\\frac{1}{2}"),
    ("the answer is 5... no, the answer is 7.", "7"),
    ("The answer is 3.5, because 7/2 is.", "3.5"),
    ("The answer is 12 and not 13", "12"),
    ("the answer is 7, not 5", "7"),
    ("The final answer is: $\\boxed{42}$. I hope it is correct.", "42"),
    ("thus \\boxed{\\frac{1}{\\sqrt{2}}} and then \\boxed{x^{2^{n}}}", "x^{2^{n}}"),
    ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
    ("First \\boxed{3}, then \\boxed{4", "3"),
    ("\\boxed{5", None),
    ("Answer: 3\nso \\boxed{4}", "3"),
    ("Answer: $\\boxed{9}$ apples", "9"),
    ("Answer: The answer is 9.", "9"),
    ("<think>\nAnswer: 3\n</think>\nIt's 4", "It's 4"),
    ("He pays 42.\n#### 42", "42"),
    ("Answer:\n\n\\[\nx = 5\n\\]", "x = 5"),
    ("The answer is\n\n\\[ x = 5 \\]", "x = 5"),
    ("Answer: **7**", "7"),
    ("Answer: `-3`", "-3"),
    ("Answer: \\text{(C)}", "(C)"),
    ("The answer to the question is 18 dollars.", "18 dollars"),
    ("12", "12"),
    ("$12.", "$12"),
    ("x = 12 apples", "x = 12 apples"),
    ("I do not know what to say here at all", None),
    ("It may be 12.\nOr not.", None),
    ("", None),
    ("   \n\n", None),
    ("Answer:", "Answer"),
]


@pytest.mark.parametrize(("response", "answer"), RESPONSES)
def test_the_last_answer_that_is_stated_is_found(response: str, answer: str | None):
    assert final(response) == answer


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("  **$5$.** ", "5"),
        ("\\(5\\)", "5"),
        ("$x$ and $y$", "$x$ and $y$"),
        ("\\text{Evelyn}", "Evelyn"),
        ("\\text{a}+\\text{b}", "\\text{a}+\\text{b}"),
        ("...", "..."),
        ("3.5.", "3.5"),
        ("", ""),
    ],
)
def test_what_is_put_around_an_answer_is_taken_off(text: str, wanted: str):
    assert plain(text) == wanted


def test_a_box_that_is_never_closed_is_none():
    assert boxed("\\boxed{1") is None and boxed("no box") is None
    assert boxed("\\fbox{ a{b}c }") == "a{b}c"


def test_what_is_said_ends_with_its_sentence():
    assert stated("the answer is 3. The rest follows.") == "3"
    assert stated("an answer would be 4; or so") == "4"
    assert stated("there's no answer here") is None


def test_long_texts_are_read_in_one_pass():
    assert final("the answer is " * 20_000) is not None
    assert final("\\boxed{" * 2_000) is None
    assert final("#" * 200_000) is None
