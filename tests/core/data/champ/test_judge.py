"""Final answers of real models, read off their summaries and judged by mathematical equivalence."""

from __future__ import annotations

import subprocess
import sys

import pytest

from llmfw.core.data.champ.extract import Claim, claim_of
from llmfw.core.data.champ.judge import gold_of, judge
from llmfw.core.data.champ.source import Answer, Problem
from llmfw.core.data.champ.verdicts import _Child
from llmfw.core.verifiers.equal import approximates, equal, parsed
from llmfw.core.verifiers.typed import latex


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("2^(n-1)", "2^{n-1}"),
        ("C(n+1, 2m+1)", r"\binom{n+1}{2m+1}"),
        ("2^floor(n/2)*floor(n/2)!", r"2^\lfloor n/2\rfloor \cdot \lfloor n/2\rfloor !"),
        ("sqrt(3)/3", r"\sqrt{3}/3"),
        ("1-1/2^(1/n)", "1-1/2^{1/n}"),
        ("1,024", "1024"),
        ("2^997", "2^{997}"),
        (r"\frac{n}{n-1}", r"\frac{n}{n-1}"),
    ],
)
def test_typed_mathematics_becomes_latex(typed: str, wanted: str) -> None:
    assert latex(typed) == wanted


CLAIMS: dict[str, Claim | None] = {
    "The smallest value of f is 0, which is obtained when x = 1.": Claim("value", ("0",)),
    r"The largest value is \(\frac{n}{n-1}\), achieved when \(x = 2\).": Claim("value", (r"\frac{n}{n-1}",)),
    "There are 29 valid strings of length 6 that differ by at most 1.": Claim("value", ("29",)),
    "The number of integers in {1, ..., 99} is $\\boxed{25}$.": Claim("value", ("25",)),
    "The minimum is approximately 1.3.": Claim("value", ("1.3",), approximate=True),
    "The equation has three positive integer solutions: (1, 2), (2, 1), (2, 2).": Claim("value", ("3",)),
    "The possible values of x are 1, 3, and 4.": Claim("list", ("1", "3", "4")),
    "The only solutions are $n=3$ and $n=5$.": Claim("list", ("3", "5")),
    "The values are x = 8 and y = 0.": None,
    "The sequence is a_n = x and b_n = y.": None,
    "Yes, such a sequence exists.": Claim("yes"),
    "No, it is not possible.": Claim("no"),
    "There are no integer solutions to x^2 = 2.": Claim("none"),
    "There are no integer solutions, except for x = 0.": None,
    "The limit of the sequence does not exist.": Claim("none"),
    "The maximum number is 1, given that f(x) = x has no real solutions.": None,
    "There are infinitely many integer values of m.": Claim("infinite"),
    "The inequality holds for all 100 values of n.": Claim("all"),
    "The value of n mod 1982, where n is a number with 1980 digits, is 0.": Claim("value", ("0",)),
    "One has to compute each term and count the integers.": None,
    "The number of ways is n factorial (n!).": Claim("value", ("n!",)),
    "P(n+1) = 1/(n+2).": Claim("value", ("1/(n+2)",)),
}


@pytest.mark.parametrize("sentence", CLAIMS)
def test_a_summary_is_read_or_left_alone(sentence: str) -> None:
    assert claim_of(sentence) == CLAIMS[sentence]


@pytest.mark.parametrize(
    ("gold", "claim", "wanted"),
    [
        ("2^{n-1}", r"\frac{2^n}{2}", True),
        ("4^n", "2^{2n}", True),
        (r"\sqrt{3}/3", r"\frac{1}{\sqrt{3}}", True),
        ("n!/(2n)", r"\frac{(n-1)!}{2}", True),
        (r"\binom{n}{4}", "n(n-1)(n-2)(n-3)/24", True),
        ("239", "239.0", True),
        ("5/14", "0.35", False),
        ("2^{n-1}", "2^{n}", False),
        ("n", "k", False),
        ("n", "n + 10^{-6} (n-5)", False),  # equal at n = 5, and nearly everywhere
        ("1", "10^{10^{10}}", None),
        ("1", "99999!", None),
        ("1", "(1/2^{1958} + 2)^{1959000}", None),
        ("1", "x(x-1) \\cdots (x-9)", None),
        ("(2n)!/(2^n n!)", "2n!/(2^n n!)", None),  # what is meant is not what is written
        ("1", "", None),
        ("1", "\\frac{1}{", None),
    ],
)
def test_equality_is_mathematical_or_undecided(gold: str, claim: str, wanted: bool | None) -> None:
    assert equal(gold, claim) is wanted


def test_an_approximate_claim_can_be_wrong_but_not_right() -> None:
    assert approximates("5/14", "0.357") is None
    assert approximates("5/14", "1.3") is False
    assert parsed("1" * 200) is None


JUDGED = [
    ("239", "How many strings?", "There are 239 strings.", "right"),
    ("239", "How many strings?", "There are 29 strings.", "wrong"),
    ("C(10, 5), or equivalently 252", "How many?", "The number is 252.", "right"),
    ("5/14, or approximately 35.7%", "What is the probability?", "The probability is 5/14.", "right"),
    ("5/14, or approximately 35.7%", "What is the probability?", "The probability is about 0.357.", "unsure"),
    ("0 is the only possible value", "Find all values.", "The possible values are 0 and 1.", "unsure"),
    ("3 is the only possible value", "Find all values.", "The only value is x = 3.", "right"),
    ("3 is the only possible value", "Find all values.", "The values are 1 and 4.", "wrong"),
    ("100 (i.e., all values)", "For how many n?", "It holds for all values of n.", "right"),
    ("999 (i.e., all except for one value)", "For how many n?", "It holds for all values of n.", "unsure"),
    ("0 (i.e., no such values)", "How many values?", "There are no such values.", "right"),
    ("0", "Find the smallest value.", "There are no such values.", "unsure"),
    ("2", "Find the smallest value.", "There is no smallest value that exists.", "wrong"),
    ("No integer solutions", "Find all.", "There are no integer solutions.", "right"),
    ("No integer solutions", "Find all.", "The only solution is (3, 0).", "wrong"),
    ("Yes", "Is it?", "Yes, it is.", "right"),
    ("Yes", "Is it?", "No, it is not.", "wrong"),
    ("Yes", "Is it?", "The value is 3.", "unsure"),
    ("1, 4 and 9", "Find all.", "The values are 9, 4 and 1.", "right"),
    ("1, 4 and 9", "Find all.", "The values are 1 and 4.", "wrong"),
    ("1, 4 and 9", "Find all.", "The value is 4.", "unsure"),
    ("The limit exists and is equal to 2/3", "Find it.", "The limit exists and is equal to 2/3.", "right"),
    ("The limit exists and is equal to 2/3", "Find it.", "The limit does not exist.", "wrong"),
    ("x=6, y=5", "Find all.", "The solution is x=6.", "unsure"),
    ("(x^2+x+1)(x^2-x+1)", "Factorize x^4+x^2+1.", "The factorization is x^4+x^2+1.", "unsure"),
]


@pytest.mark.parametrize(("gold", "problem", "summary", "wanted"), JUDGED)
def test_verdicts(gold: str, problem: str, summary: str, wanted: str) -> None:
    assert judge(gold, problem, summary) == wanted


def test_gold_answers_that_are_no_expression_are_not_judged() -> None:
    for answer in (
        "Monotonically increasing",
        "x=±1, ±2",
        "[-1, 1]",
        "x(x-1)...(x-9)",
        "Exactly one",
        "a=3, b=-4",
    ):
        assert gold_of(answer, "Find it.").kind == "unknown"


def _problem(answer: str) -> Problem:
    said = (Answer("m", "0-Shot", "text", "There are 3 ways."),)
    return Problem("P", "How many?", answer, "c", (), (), (), said)


def test_judging_runs_in_a_child_that_may_die() -> None:
    """A child that ends, or takes too long, makes answers unsure; the next question starts another."""
    with _Child() as child:
        assert child.ask(_problem("3"), ["There are 3 ways.", "There are 4 ways."]) == ["right", "wrong"]
        process = child._process
        assert process is not None
        process.kill()
        process.wait()
        assert child.ask(_problem("3"), ["There are 3 ways."]) == ["unsure"]
        assert child.ask(_problem("3"), ["There are 3 ways."]) == ["right"]
    with _Child(seconds=0.0) as hasty:
        assert hasty.ask(_problem("3"), ["There are 3 ways."]) == ["unsure"]


def test_reading_claims_needs_no_computer_algebra() -> None:
    code = (
        "import sys, llmfw.core.data.champ.judge; sys.exit('sympy' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
