"""Verdicts by rule, on differences worked out by hand.

With three values the 97.5% point of Student's t is 4.302653 (two degrees of freedom). Of 2, 3, 4 the mean
is 3, the standard deviation 1, so half the interval is 4.302653 / sqrt(3) = 2.484138: it goes from 0.515862
to 5.484138. Of 0, 1, 2 it goes from -1.484138 to 3.484138.
"""

from __future__ import annotations

import math

import pytest

from llmfw.core.evidence.verdict import Rule, judge, spread

UP = (2.0, 3.0, 4.0)
LOW, HIGH = 3 - 2.484138, 3 + 2.484138


def verdict(kind, effect, differences, *, higher=True):
    """Of a baseline that is 10 for every seed and a method that differs from it as told."""
    sign = 1 if higher else -1
    method = {str(seed): 10.0 + sign * value for seed, value in enumerate(differences)}
    arms = [("plain", dict.fromkeys(method, 10.0)), ("mine", method)]
    return judge(Rule(kind=kind, effect=effect, higher=higher), arms)


def test_the_interval_is_students_over_seeds():
    found = spread(UP)
    assert (found.value, found.n) == (3.0, 3)
    assert found.low == pytest.approx(LOW, abs=1e-6)
    assert found.high == pytest.approx(HIGH, abs=1e-6)


def test_equal_values_have_no_variance_at_all():
    """0.1 three times: 0.1 + 0.1 + 0.1 isn't 3 x 0.1 in floats, and mustn't make an interval."""
    found = spread((0.1, 0.1, 0.1))
    assert (found.value, found.low, found.high) == (0.1, 0.1, 0.1)


@pytest.mark.parametrize(
    ("effect", "differences", "wanted"),
    [
        (3.0, UP, "reproduced"),  # the mean is the effect, just
        (3.1, UP, "inconclusive"),  # above 0, but too small, and not within +-3.1
        (5.5, UP, "not reproduced"),  # 5.484 < 5.5
        (5.4, UP, "inconclusive"),
        (0.1, (0.0, 1.0, 2.0), "inconclusive"),  # 0 is inside
        (3.5, (0.0, 1.0, 2.0), "not reproduced"),
        (3.0, (-2.0, -3.0, -4.0), "opposite"),
        (5.5, (-2.0, -3.0, -4.0), "opposite"),  # below 0 comes before within +-5.5
        (1.0, (1.0, 1.0, 1.0), "reproduced"),
        (1.5, (1.0, 1.0, 1.0), "not reproduced"),
        (0.5, (0.0, 0.0, 0.0), "not reproduced"),
        (0.5, (-0.25, -0.25, -0.25), "opposite"),
    ],
)
def test_greater(effect, differences, wanted):
    assert verdict("greater", effect, differences).verdict == wanted
    assert verdict("greater", effect, differences, higher=False).verdict == wanted


@pytest.mark.parametrize(
    ("effect", "differences", "wanted"),
    [
        (5.49, UP, "reproduced"),
        (5.48, UP, "inconclusive"),  # the upper end sticks out
        (0.52, UP, "inconclusive"),  # the lower end is inside
        (0.51, UP, "opposite"),  # wholly outside
        (0.51, (-2.0, -3.0, -4.0), "opposite"),
        (1.0, (1.0, 1.0, 1.0), "reproduced"),  # the border belongs to the inside
        (1.0, (-1.0, -1.0, -1.0), "reproduced"),
    ],
)
def test_equivalent(effect, differences, wanted):
    assert verdict("equivalent", effect, differences).verdict == wanted


@pytest.mark.parametrize(
    ("effect", "differences", "wanted"),
    [
        (1.49, (0.0, 1.0, 2.0), "reproduced"),  # -1.484 > -1.49
        (1.48, (0.0, 1.0, 2.0), "inconclusive"),
        (0.51, (-2.0, -3.0, -4.0), "opposite"),  # upper end -0.5159 < -0.51
        (0.52, (-2.0, -3.0, -4.0), "inconclusive"),
        (1.0, (-1.0, -1.0, -1.0), "inconclusive"),  # neither above nor below the margin
        (1.0, (-0.5, -0.5, -0.5), "reproduced"),
        (0.25, (-0.5, -0.5, -0.5), "opposite"),
    ],
)
def test_not_worse(effect, differences, wanted):
    assert verdict("not_worse", effect, differences).verdict == wanted
    assert verdict("not_worse", effect, differences, higher=False).verdict == wanted


@pytest.mark.parametrize(
    ("level", "values", "higher", "wanted"),
    [
        (0.51, UP, True, "reproduced"),
        (0.52, UP, True, "inconclusive"),
        (5.48, UP, True, "inconclusive"),
        (5.49, UP, True, "opposite"),
        (5.49, UP, False, "reproduced"),
        (0.51, UP, False, "opposite"),
        (3.0, UP, False, "inconclusive"),
        (1.0, (1.0, 1.0, 1.0), True, "reproduced"),  # at the level
        (1.0, (1.0, 1.0, 1.0), False, "reproduced"),
        (1.5, (1.0, 1.0, 1.0), True, "opposite"),
    ],
)
def test_level(level, values, higher, wanted):
    method = {str(seed): value for seed, value in enumerate(values)}
    found = judge(Rule(kind="level", effect=level, higher=higher), [("mine", method)])
    assert found.verdict == wanted
    assert found.spread == spread(values)  # shown as it was measured, also where lower is better
    assert found.differences == {}


def test_differences_are_paired_by_seed_and_turned_round_where_lower_is_better():
    """Seed 2 has no baseline and seed 3 no method: seeds 1 and 10 remain, in the order of their numbers."""
    baseline = {"10": 5.0, "1": 4.0, "3": 9.0}
    method = {"1": 3.0, "10": 1.0, "2": 0.0}
    found = judge(Rule(kind="greater", effect=1.0, higher=False), [("plain", baseline), ("mine", method)])
    assert list(found.differences.items()) == [("1", 1.0), ("10", 4.0)]


@pytest.mark.parametrize("kind", ["greater", "equivalent", "not_worse"])
def test_one_seed_is_inconclusive_and_says_so(kind):
    found = verdict(kind, 1.0, (5.0,))
    assert found.verdict == "inconclusive"
    assert "1 of seeds" in found.why


def test_an_exact_result_needs_three_instances():
    assert verdict("greater", 1.0, (1.0, 1.0)).verdict == "inconclusive"
    assert "needs 3" in verdict("greater", 1.0, (1.0, 1.0)).why
    assert verdict("greater", 1.0, (1.0, 1.0, 1.0)).verdict == "reproduced"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", ["greater", "equivalent", "not_worse", "level"])
def test_a_value_that_is_not_finite_is_a_failure_never_a_success(kind, bad):
    method = {"1": 3.0, "2": bad, "3": 3.0}
    arms = (
        [("mine", method)]
        if kind == "level"
        else [("plain", {"1": 0.0, "2": 0.0, "3": 0.0}), ("mine", method)]
    )
    found = judge(Rule(kind=kind, effect=1.0), arms)
    assert found.verdict == "failed"
    assert "arm mine: seed 2" in found.why


def test_no_value_at_all_is_inconclusive():
    assert verdict("greater", 1.0, ()).verdict == "inconclusive"


def test_items_are_judged_over_items_averaged_over_seeds():
    """Differences of items: seed 1 gives 0, 2; seed 2 gives 2, 4. By item that is 1 and 3: the mean is 2, and
    resampling two items gives means of 1, 2 and 3 with shares 1/4, 1/2, 1/4, so the interval is 1 to 3.
    """
    baseline = {"1": (1.0, 1.0), "2": (0.0, 0.0)}
    method = {"1": (1.0, 3.0), "2": (2.0, 4.0)}
    rule = Rule(kind="greater", effect=2.0, items=True)
    found = judge(rule, [("plain", baseline), ("mine", method)])
    assert found.differences == {"1": (0.0, 2.0), "2": (2.0, 4.0)}
    assert found.spread is not None
    assert (found.spread.value, found.spread.low, found.spread.high, found.spread.n) == (2.0, 1.0, 3.0, 2)
    assert found.verdict == "reproduced"


def test_one_seed_of_many_items_is_enough_for_an_interval():
    rule = Rule(kind="greater", effect=0.5, items=True)
    arms = [("plain", {"1": (0.0,) * 40}), ("mine", {"1": (1.0, 0.5) * 20})]
    assert judge(rule, arms).verdict == "reproduced"


@pytest.mark.parametrize(
    ("items", "baseline", "method", "says"),
    [
        (True, {"1": (1.0, 2.0)}, {"1": (1.0,)}, "unequally many items"),
        (True, {"1": (1.0, 2.0), "2": (1.0,)}, {"1": (1.0, 2.0)}, "unequally many items"),
        (True, {"1": 1.0}, {"1": 2.0}, "one value an item"),
        (False, {"1": (1.0, 2.0)}, {"1": (1.0, 3.0)}, "one value, seed 1"),
    ],
)
def test_values_that_can_not_be_paired_are_a_failure(items, baseline, method, says):
    found = judge(Rule(kind="greater", effect=1.0, items=items), [("plain", baseline), ("mine", method)])
    assert found.verdict == "failed"
    assert says in found.why
