"""What scorers that evaluate Python are given: nothing that does anything."""

from __future__ import annotations

from typing import Any

import pytest

from llmfw.core.verifiers.gym_guard import may_be_asked, may_score

EVIL = "__import__('os').system('true')"


@pytest.mark.parametrize(
    ("task", "answer", "wanted"),
    [
        ("spiral_matrix", "[1, 2, 3]", True),
        ("spiral_matrix", "1 2 3", True),
        ("spiral_matrix", EVIL, False),
        ("spiral_matrix", " " + EVIL, False),
        ("spiral_matrix", "[" * 5000, True),
        ("spiral_matrix", "9**9**9**9", False),
        ("string_insertion", "oracle_answer", False),
        ("n_queens", "_ Q\nQ _", True),
        ("n_queens", f"[{EVIL}]", False),
        ("binary_matrix", "(lambda: 1)()", False),
        ("countdown", "(3 + 4) * 5 - 6 / 2", True),
        ("countdown", "9**9**9**9", False),
        ("countdown", EVIL, False),
        ("countdown", "1+" * 200, False),
        ("puzzle24", "8 / (3 - 8 / 3)", True),
        ("puzzle24", "24 if True else 1", False),
        ("simple_integration", "2*x**3/3 + sin(x) - exp(-x) + C", True),
        ("simple_integration", "sqrt(x)/2 + x**(1/2)", True),
        ("simple_integration", EVIL, False),
        ("simple_integration", "x.__class__", False),
        ("simple_integration", "open('file')", False),
        ("simple_integration", "sin(x, evaluate=False)", False),
        ("simple_integration", "x**9999", False),
        ("simple_integration", "((x+1)**10)**10", False),
        ("simple_integration", "2**x**2", False),
        ("polynomial_multiplication", "6*x**4 + 3*y**2 - 1", True),
        ("polynomial_multiplication", "+x" * 300, False),
        ("polynomial_multiplication", "(" * 5000, False),
        ("coin_flip", "3/8", True),
        ("coin_flip", "0.375", True),
        ("coin_flip", "1e999999999", False),
        ("chain_sum", EVIL, True),
        ("chain_sum", "1" * 20_001, False),
    ],
)
def test_an_answer_reaches_a_scorer_only_in_a_form_that_does_nothing(task: str, answer: str, wanted: bool):
    assert may_score(task, answer) is wanted


@pytest.mark.parametrize(
    ("task", "entry", "wanted"),
    [
        ("number_sorting", {"answer": "['1', '2.5']"}, True),
        ("number_sorting", {"answer": EVIL}, False),
        ("number_sorting", {"answer": "no list"}, False),
        ("bitwise_arithmetic", {"metadata": {"problem": "((0x3a9c << 0x2) - (0x1234 * 0xff))"}}, True),
        ("bitwise_arithmetic", {"metadata": {"problem": EVIL}}, False),
        ("bitwise_arithmetic", {"metadata": {"problem": "1 << 99999999999"}}, False),
        ("bitwise_arithmetic", {"metadata": {"problem": "1 << (1 << 60)"}}, False),
        ("bitwise_arithmetic", {"metadata": {"problem": "9**9**9"}}, False),
        ("bitwise_arithmetic", {}, False),
        ("simple_integration", {"answer": "x**2 + C", "metadata": {"integrand": "2*x"}}, True),
        ("simple_integration", {"answer": "x**2 + C", "metadata": {"integrand": EVIL}}, False),
        ("polynomial_multiplication", {"answer": EVIL}, False),
        ("chain_sum", {"answer": EVIL}, True),
    ],
)
def test_a_row_reaches_a_scorer_only_so_too(task: str, entry: dict[str, Any], wanted: bool):
    assert may_be_asked(task, entry) is wanted
