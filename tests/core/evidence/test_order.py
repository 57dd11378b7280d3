"""Which arms saw the same samples in the same order."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmfw.core.claims import Claim
from llmfw.core.errors import PluginError
from llmfw.core.evidence.order import apart, check_order

CLAIM = Claim(id="mine.1", statement="It is so", paper="none", metric="count", not_tested="no need")


def test_a_longer_training_may_go_on_unless_the_whole_counts():
    seen = [("few", "ab"), ("many", "abcd")]
    assert apart(seen) is None
    assert apart(seen, whole=True) == ("few", "many", "2 samples and 4")


def test_the_first_sample_that_differs_is_named_with_both_arms_in_their_order():
    assert apart([("one", "abcd"), ("other", "acb")]) == ("one", "other", "sample 2 is 'b' and 'c'")
    assert apart([("one", ""), ("other", "a")]) == ("one", "other", "one of them saw no data")


def test_a_short_arm_between_two_that_differ_hides_nothing():
    """Each of the two agrees with the short one: what they share is their first sample."""
    with pytest.raises(PluginError, match="arms .left. and .right. of seed 1 .*: sample 2 is") as told:
        check_order(CLAIM, 1, [("left", "ab"), ("short", "a"), ("right", "ac")], Path("reproduce.py"))
    assert told.value.code == "EVIDENCE-ORDER"


def test_arms_that_saw_nothing_at_all_saw_the_same():
    assert apart([("one", ""), ("other", "")], whole=True) is None
