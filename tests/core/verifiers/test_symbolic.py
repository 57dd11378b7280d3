"""The verifier ``math``: answers as people and models write them, judged by hand beforehand."""

from __future__ import annotations

import pytest

from llmfw.core.errors import ResourceError
from llmfw.core.verifiers import symbolic
from llmfw.core.verifiers.symbolic import build, same

SAME = [
    ("1/2", "0.5"), (r"\frac{1}{2}", "0.5"), (r"\frac12", "1/2"), (r"\dfrac{3}{4}", ".75"),
    ("7/2", r"3\frac{1}{2}"),
    ("1,000", "1000"), ("1000", "1{,}000"), ("12", r"12\text{ cm}"), ("12 cm", "12"), ("50", r"50\%"),
    (r"\$18.90", "18.9"), ("$18", "18 dollars"),
    (r"30^\circ", "30"), ("30°", "30 degrees"), ("5 m", "5 meters"),
    ("7", "x = 7"), ("x = 7", "7"), ("y=2x+1", "y = 1+2x"), ("x+y=1", "y+x = 1"),
    ("2^(n-1)", "2^n/2"), ("C(10, 5)", "252"), ("sqrt(3)/3", r"\frac{1}{\sqrt{3}}"),
    (r"3\sqrt{13}", r"\sqrt{117}"),
    (r"\frac{\pi}{2}", "pi/2"), ("x^2-1", "(x-1)(x+1)"), ("2xy", "2yx"), ("a+b", "b + a"), ("3+4i", "4i+3"),
    ("1, 4 and 9", "9, 4, 1"), (r"\{1, 2\}", "2, 1"), (r"\pm 2", "2, -2"), (r"x = \pm 2", "-2 or 2"),
    ("(1, 2)", "(1,2)"), ("(1/2, 3)", "(0.5, 3)"), (r"\left(3, \frac{\pi}{2}\right)", r"(3,\frac{\pi}{2})"),
    ("[0, 1)", r"\left[0, 1\right)"), (r"(-\infty, 2]", "(-infinity, 2]"), (r"\infty", "infinity"),
    ("10^{9999}", "10^{9999}"), ("Tuesday", "tuesday."), (r"\text{Evelyn}", "Evelyn"), ("No", "No, it isn't"),
    ("9" * 40, "9" * 40), ("2^{100}", str(2**100)), ("0.1+0.2", "3/10"), (r"\frac{0.1}{0.3}", "1/3"),
    (r"\frac{3\pi}{2}", r"1.5\pi"), ("x/2", "0.5x"), ("2^{0.5}", r"\sqrt{2}"), ("1", r"\sin^2 x+\cos^2 x"),
    ("1/3", r"0.\overline{3}"), ("1/6", r"0.1\overline{6}"), (r"2^{n}\cdot n!", r"n!\cdot 2^n"),
    (r"(-1)^{n}", r"\cos(n\pi)"),
]  # fmt: skip
OTHER = [
    ("1/3", "0.3333"),
    ("5", "5x"),
    ("5x", "5"),
    ("12", "12 million"),
    ("12 cm", "12 m"),
    ("12 cm^2", "12 cm"),
    ("7", "x = 8"),
    ("y=2x+1", "y=2x+3"),
    ("2^{n-1}", "2^n"),
    ("n", "k"),
    ("(1, 2)", "(2, 1)"),
    ("[0, 1)", "[0, 1]"),
    ("1, 4 and 9", "1, 4"),
    ("1, 4", "1, 4, 4"),
    ("1, 4, 4", "1, 4, 9"),
    ("No", "On"),
    ("Tuesday", "Thursday"),
    ("even", "odd"),
    ("2", "two"),
    ("6", "5 or 6"),
    ("7", r"10^{10^{10}}"),
    ("7", r"2^{(2^{(2^{(2^{5})})})}"),
    ("7", "I can't tell"),
    ("7", "9" * 5000),
    ("9" * 40, "9" * 39 + "8"),
    ("10^{9999}", "10^{9998}"),
]
NEAR = [
    (r"\frac{1}{3}", "0.333"), (r"\frac{1}{3}", "0." + "3" * 40), (r"\frac{x}{3}", "0.3333333333x"),
    ("10^{20}+1", "10^{20}"), ("10^{20}", "10^{20}+1"), ("2^{1000}", "2^{1000}+1"), ("100!", "100!+1"),
    ("10^{-20}", "10^{-21}"), ("0", "10^{-20}"), ("3^{40}", str(3**40 + 1)), ("2^{100}", str(2**100 + 1)),
    (r"\pi", "3.14159265358979"), (r"\sqrt{2}", "1.41421356237"), (r"\sqrt{2}+10^{-15}", r"\sqrt{2}"),
    ("e^{20}", "485165195.40979"), ("x", "x+10^{-10}"), ("x+10^{20}", "x+10^{20}+1"),
    ("(x-5)(x-7)(x-12)", "0"), ("x", "|x|"), ("x", "floor(x)"), ("sin(2pi x)", "0"),
]  # fmt: skip
UNTOLD = [
    ("x+y=1", "2x+2y=2"),
    ("9^{(9^{(9^{9})})}", "8"),
    ("7" * 301, "8" * 301),
]


@pytest.mark.parametrize(("gold", "claim"), SAME)
def test_equal_answers_are_equal(gold: str, claim: str):
    assert same(gold, claim) is True


@pytest.mark.parametrize(("gold", "claim"), OTHER)
def test_other_answers_are_other(gold: str, claim: str):
    assert same(gold, claim) is False


@pytest.mark.parametrize(("gold", "claim"), NEAR)
def test_numbers_and_expressions_that_are_nearly_equal_are_other(gold: str, claim: str):
    assert same(gold, claim) is False and same(claim, gold) is False


@pytest.mark.parametrize(("gold", "claim"), UNTOLD)
def test_what_cannot_be_told_is_neither(gold: str, claim: str):
    assert same(gold, claim) is None


@pytest.mark.parametrize(
    ("gold", "response", "status", "answer"),
    [
        ("239", "There are 239 strings of that kind, as counted above.\nAnswer: 239", "right", "239"),
        ("5/14", "Answer: $\\frac{5}{14}$", "right", "\\frac{5}{14}"),
        ("2^{n-1}", "the answer is 5... no, the answer is \\(2^{n}/2\\).", "right", "2^{n}/2"),
        ("3", "\\boxed{2}\nOh no. \\boxed{3}", "right", "3"),
        ("3", "\\boxed{3}\nOh no. \\boxed{2}", "wrong", "2"),
        ("10^{9999}", "Answer: 10^{9998}", "wrong", "10^{9998}"),
        ("x+y=1", "Answer: 2x+2y=2", "failed", "2x+2y=2"),
        ("3", "Let me count them one after the other.", "unparsed", None),
    ],
)
def test_the_verdict_is_on_the_last_answer(gold: str, response: str, status: str, answer: str | None):
    (verdict,) = build().verify([{"prompt": "?", "answer": gold}], [response])
    assert (verdict.status, verdict.answer) == (status, answer)


@pytest.mark.parametrize("gold", sorted({gold for gold, _ in (*SAME, *OTHER, *NEAR)}))
def test_what_is_known_of_a_row_is_judged_so(gold: str):
    row = {"prompt": "?", "answer": gold}
    known = build().canaries(row)
    verdicts = build().verify([row] * len(known), [response for response, _ in known])
    assert [one.right for one in verdicts] == [right for _, right in known]
    assert {right for _, right in known} == {True, False}


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(symbolic.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ResourceError, match="pip install 'llmfw\\[demo\\]'"):
        build()
