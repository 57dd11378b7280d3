"""Nothing that takes long reaches computer algebra, and what does is told apart exactly."""

from __future__ import annotations

import pytest

from llmfw.core.verifiers.bounds import unreadable
from llmfw.core.verifiers.equal import equal, parsed

LARGE = [
    r"2^{(2^{(2^{(2^{5})})})}",
    r"2^{(3^{(4^{5})})}",
    r"10^{10^{10}}",
    r"x^{x^{x}}",
    r"(((2^{999})^{999})^{999})^{999}",
    r"(((3!)!)!)!",
    r"(9^{999})!",
    r"99999999999!",
    r"\binom{999999999}{99999999}",
    r"\binom{2 \cdot 5}{30}",
    r"\binom{\binom{99}{49}}{\binom{99}{48}}",
    r"{999999999 \choose 99999999}",
    r"\gcd(2^{99}, 3^{99})",
    r"e^{e^{e^{e^{9}}}}",
    r"\exp(\exp(\exp(9)))",
    r"\sin(10^{9999})",
    r"\log(10^{9999})",
    r"\frac{1}{(10^{999})^{999}}",
    r"\int_0^1 x^x dx",
    r"\lim_{x \to 0} x",
    r"\sum_{i=1}^{10} i",
    "(" * 40 + "1" + ")" * 40,
    "{" * 40 + "1" + "}" * 40,
    "1+" * 400 + "1",
    r"\begin{pmatrix}1&2\\3&4\end{pmatrix}",
]


@pytest.mark.parametrize("latex", LARGE)
def test_what_could_take_long_is_not_worked_out(latex: str):
    assert parsed(latex) is None
    assert equal("7", latex) is None and equal(latex, "7") is None


@pytest.mark.parametrize(
    "latex",
    [
        r"\binom{n}{4}",
        r"\binom{n-m}{m} + \binom{n/2}{3}",
        r"{n+1 \choose 2}",
        r"2^{n^2}",
        r"n^{n}",
        r"(2n)!/(2^n n!)",
        r"\sqrt{2+\sqrt{3+\sqrt{5}}}",
        r"(a b^n)^{1/(2n+2)}",
        r"10^{9999}",
        r"\lfloor n/2 \rfloor",
        r"\frac{\sqrt{3}}{2^{n-1}}",
    ],
)
def test_what_people_answer_is(latex: str):
    assert not unreadable(latex) and parsed(latex) is not None


@pytest.mark.parametrize(
    ("gold", "claim", "wanted"),
    [
        (r"\sqrt{5+2\sqrt{6}}", r"\sqrt{2}+\sqrt{3}", True),
        (r"\cos(\pi/7)-\cos(2\pi/7)+\cos(3\pi/7)", "1/2", True),
        (r"\sqrt{2}^{\sqrt{2}}", r"2^{\frac{\sqrt{2}}{2}}", True),
        (r"e^{\pi\sqrt{163}}", "262537412640768744", False),  # equal in 30 digits, and different
        (r"\frac{\pi}{4}", "0.7853981", False),
    ],
)
def test_constants_are_equal_in_forty_digits_or_not_at_all(gold: str, claim: str, wanted: bool):
    assert equal(gold, claim) is wanted
