"""What a plugin states is checked before anything runs: errors name reproduce.py and the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmfw.core import discovery
from llmfw.core.errors import PluginError, UsageError
from llmfw.core.evidence.stated import read_claims, states_claims
from tests.core.evidence.toys import CLAIMS, PLUGIN, write_mine
from tests.toys import write_toy


def stated(site: Path, claims: str = CLAIMS):
    write_mine(site, claims)
    discovery.forget()
    return read_claims("mine")


def test_the_claims_and_arms_of_an_installed_plugin_are_read(site):
    found = stated(site)
    assert [claim.id for claim in found.claims] == ["mine.1", "mine.2", "mine.3"]
    assert found.folder == site / "toy_mine"
    assert list(found.arms(found.claims[0], 1, "smoke")) == ["few", "many", "slow"]
    assert [claim.id for claim in found.chosen(["2", "mine.1"])] == ["mine.1", "mine.2"]
    with pytest.raises(UsageError, match="states no claim 'mine.7'; choose of: mine.1, mine.2, mine.3"):
        found.chosen(["7"])


def test_a_plugin_without_reproduce_has_none_and_says_why(site):
    write_toy(site, "folder", PLUGIN)
    info = site / "toy_single-1.0.dist-info"
    info.mkdir()
    (site / "toy_single.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-single\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[llmfw.plugins]\nsingle = toy_single:Toy\n")
    discovery.forget()
    assert not states_claims(discovery.card("folder"))
    with pytest.raises(UsageError, match="has no reproduce.py"):
        read_claims("folder")
    assert not states_claims(discovery.card("single"))
    with pytest.raises(UsageError, match="is one file"):
        read_claims("single")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('id="mine.2"', 'id="mine.x"', r"mine.x.id: an id is mine.NUMBER"),
        ('id="mine.2"', 'id="other.2"', r"other.2.id: an id is mine.NUMBER"),
        ('id="mine.2"', 'id="mine.1"', r"mine.1: two claims have this id"),
        ('statement="It is fast"', 'statement=" "', r"mine.3.statement: this is empty"),
        ('kind="level"', 'kind="better"', r"mine.2.kind: 'better' is none of"),
        ('direction="lower"', 'direction="down"', r"mine.1.direction"),
        ("effect=0.1", "effect=0.0", r"mine.1.effect: .* has to be above 0"),
        ('metric="count"', 'metric=""', r"mine.2.metric: this is empty"),
        ('arms=("few", "many")', 'arms=("many",)', r"mine.1.arms: .*\(baseline, method\), not 1"),
        ('arms=("counted",)', 'arms=("few", "many")', r"mine.2.arms: .*\(method,\), not 2"),
        ('controls=("slow",)', 'controls=("few",)', r"mine.1.arms: an arm stands there twice"),
        ('"smoke": (1, 2), "small": (1, 2)', "", r"mine.1.seeds: no size has seeds"),
        ('"smoke": (1, 2), "small"', '"tiny": (1, 2), "small"', r"mine.1.seeds: 'tiny' is none of"),
        ('"smoke": (1, 2), "small"', '"smoke": (1, 1), "small"', r"mine.1.seeds: size smoke needs different"),
        ('not_tested="needs a GPU"', 'not_tested="no", arms=("a", "b")', r"mine.3.arms: .* neither arms nor"),
        ("def arms(", "def arm(", r"arms: there is no function arms"),
        ("CLAIMS = (", "CLAIMS = [] and (", r"CLAIMS: CLAIMS is empty"),
        ("CLAIMS = (", "CLAIMS = 'mine' or (", r"CLAIMS: CLAIMS has to be a tuple"),
    ],
)
def test_a_broken_rule_is_named_with_file_and_key(site, old, new, says):
    assert old in CLAIMS
    with pytest.raises(PluginError, match=rf"toy_mine/reproduce.py:{says}"):
        stated(site, CLAIMS.replace(old, new))


def test_an_import_that_fails_names_the_plugin_and_the_line(site):
    with pytest.raises(PluginError, match=r"reproduce.py:3: plugin 'mine' \(toy-mine 1.0\)") as raised:
        stated(site, "import json\n\n1 / 0\n")
    assert raised.value.code == "PLUGIN-IMPORT"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"few": trained', '"fewer": trained', "gave no arm 'few' "),
        ('trained("two steps", 2)', '"two steps"', "mapping of names to llmfw.Arm"),
        ('trained("two steps", 2)', 'trained("two steps", 2, after="few")', "starts from itself"),
        ('trained("two steps", 2)', 'trained("two steps", 2, after="none")', "gave no arm 'none'"),
        ('trained("two steps", 2)', 'trained("two", 2, after="counted")', "which trains nothing"),
        ('"trainer.threads": 1,', '"seed": 1,', "seed is set by the command"),
        ('"trainer.threads": 1,', '"run.dir": "x",', "run.dir is set by the"),
        (
            'trained("two steps", 2)',
            'trained("two steps", 2, run=counted)',
            "an arm with run takes no plugins",
        ),
    ],
)
def test_arms_that_break_a_rule_are_named(site, old, new, says):
    assert old in CLAIMS
    found = stated(site, CLAIMS.replace(old, new, 1))
    with pytest.raises(PluginError, match=says):
        found.arms(found.claims[0], 1, "smoke")


def test_arms_that_raise_name_plugin_and_line(site):
    found = stated(site, CLAIMS.replace("    return {\n", "    1 / 0\n    return {\n", 1))
    with pytest.raises(PluginError, match=r"reproduce.py:\d+: plugin 'mine' \(toy-mine 1.0\).*ZeroDivision"):
        found.arms(found.claims[0], 1, "smoke")


def test_an_arm_comes_after_the_one_from_whose_weights_it_starts(site):
    found = stated(site, CLAIMS.replace('trained("two steps", 2)', 'trained("two steps", 2, after="slow")'))
    assert list(found.arms(found.claims[0], 1, "smoke")) == ["slow", "few", "many"]
