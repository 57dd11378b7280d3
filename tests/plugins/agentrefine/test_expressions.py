"""Which regular expressions of strangers are run: those whose worst case ends."""

from __future__ import annotations

import math
import time

import pytest

from llmfw.plugins.agentrefine.expressions import LONGEST, MOST_WAYS, compiled, ways
from llmfw.plugins.agentrefine.records import TrajectoryError


@pytest.mark.parametrize(
    ("regex", "count"),
    [
        ("look", 1),
        ("look?", 2),
        ("(a|b|c)(d|e)", 6),
        ("go|walk", 2),
        ("go .*", LONGEST + 1),
        ("a{3}b", 1),
        ("[a-z|(*+]+ from x", LONGEST + 1),
        (r"\(a\)\*", 1),
        (r"(?P<item>\w+) in (?P<box>.+?)", math.comb(LONGEST + 2, 2)),
        ("(?i)look( here)?", 2),
    ],
)
def test_the_ways_to_read_an_action_by_hand(regex: str, count: int) -> None:
    """A repetition may end at 301 places; two of them share 300 characters in C(302, 2) = 45,451 ways."""
    assert ways(regex) == count
    assert compiled(regex)


@pytest.mark.parametrize(
    "regex",
    [
        "(a+)+b", "((a+))+b", "(a|a)*b", "(a|ab)*c", "(a?){50}b", "(?:a|a){2,90}b", "a?" * 60 + "a" * 60,
        "(ab|ab)" * 40 + "c", ".*.*.*.*x", r"\w+\s*\w+\s*x", "(?=a)b", "(?<!a)b", r"(a)\1", "(?P<x>a)(?P=x)",
        "a" * (LONGEST + 1),
    ],
)  # fmt: skip
def test_an_expression_that_might_never_end_is_refused_before_it_is_run(regex: str) -> None:
    with pytest.raises(TrajectoryError, match=r"error\[ACTION-REGEX\].*may take for ever.*three repetitions"):
        compiled(regex)


@pytest.mark.parametrize("regex", ["[a ]*[a ]*[a ]*b", "(a|a)" * 20 + "b", "(.*)(.*)(a|a)(a|a)b"])
def test_what_is_let_through_ends_in_seconds_on_the_worst_action(regex: str) -> None:
    assert ways(regex) <= MOST_WAYS
    start = time.process_time()
    assert compiled(regex).fullmatch("a" * LONGEST) is None
    assert time.process_time() - start < 20


@pytest.mark.parametrize("regex", ["(", "[a", "a**", "(?P<1>a)"])
def test_what_is_no_expression_is_told_in_one_line(regex: str) -> None:
    with pytest.raises(TrajectoryError, match=r"error\[ACTION-REGEX\].*is no regular expression"):
        compiled(regex)


def test_no_expression_is_worse_than_counted() -> None:
    assert math.comb(LONGEST + 3, 3) <= MOST_WAYS < math.comb(LONGEST + 4, 4)
