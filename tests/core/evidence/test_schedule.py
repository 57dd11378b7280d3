"""What is run, in which order, and when two arms are the same."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from llmfw.core import discovery
from llmfw.core.claims import Arm
from llmfw.core.errors import PluginError, UsageError
from llmfw.core.evidence.definition import define
from llmfw.core.evidence.run import fingerprint_of
from llmfw.core.evidence.schedule import make_schedule
from llmfw.core.evidence.stated import read_claims
from tests.core.evidence.toys import CLAIMS, write_mine


def stated(site: Path, claims: str = CLAIMS):
    write_mine(site, claims)
    discovery.forget()
    return read_claims("mine")


def test_all_arms_of_a_seed_come_before_the_next_seed_and_each_once(site):
    found = make_schedule(stated(site), "smoke")
    assert [task.place for task in found.tasks] == [
        "seed-1/few", "seed-1/many", "seed-1/slow", "seed-1/counted",
        "seed-2/few", "seed-2/many", "seed-2/slow", "seed-2/counted", "seed-3/counted",
    ]  # fmt: skip


def test_seeds_are_those_of_the_size_or_the_users_or_further_ones(site):
    plugin = stated(site)
    assert make_schedule(plugin, "small", ids=["1"], seeds=(7, 5)).seeds == {"mine.1": (7, 5)}
    more = make_schedule(plugin, "small", further=2, filed={"mine.1": [1, 2, 9]})
    assert more.seeds == {"mine.1": (10, 11), "mine.2": (4, 5)}
    with pytest.raises(UsageError, match="no chosen claim .* has seeds for size full; add --size small"):
        make_schedule(plugin, "full")


def test_an_arm_of_two_claims_has_to_be_one(site):
    two = CLAIMS.replace("two steps", "two steps of {claim.id}").replace(
        'trained("two steps of {claim.id}", 2)', "trained(claim.id, 2 if claim.id == 'mine.1' else 3)"
    )
    two = two.replace(
        'kind="level", effect=2.0,\n        arms=("counted",)', 'effect=2.0, arms=("few", "counted")'
    )
    with pytest.raises(PluginError, match=r"mine.2.few: arm 'few' isn't the same as in another claim"):
        make_schedule(stated(site, two), "smoke")


def test_the_fingerprint_knows_claims_seeds_words_and_code_but_not_where_numbers_go(site):
    plugin = stated(site)
    plain = fingerprint_of(make_schedule(plugin, "smoke"))
    assert fingerprint_of(make_schedule(plugin, "smoke")) == plain
    assert fingerprint_of(make_schedule(plugin, "smoke", words=["run.dir=x"])) == plain
    assert fingerprint_of(make_schedule(plugin, "small")) != plain
    assert fingerprint_of(make_schedule(plugin, "smoke", ids=["1"])) != plain
    assert fingerprint_of(make_schedule(plugin, "smoke", seeds=(1,))) != plain
    assert fingerprint_of(make_schedule(plugin, "smoke", words=["optimizer.lr=1"])) != plain
    (plugin.folder / "plugin.py").write_text((plugin.folder / "plugin.py").read_text() + "# more\n")
    assert fingerprint_of(make_schedule(plugin, "smoke")) != plain


ABOUTS = (("two", 2), ("two again", 2), ("three", 3))


def counting(steps: int):
    return lambda workspace: {"steps": steps}


def test_an_arm_is_what_it_does_and_not_where_it_lies_in_memory():
    assert define(Arm(about="a", run=counting(2)), "small") == define(
        Arm(about="b", run=counting(2)), "small"
    )
    assert define(Arm(about="a", run=counting(2)), "small") != define(
        Arm(about="a", run=counting(3)), "small"
    )
    assert define(Arm(about="a", run=counting(2)), "small") != define(Arm(about="a", run=counting(2)), "full")
    first, second = (Arm(about="a", run=partial(print, end)) for end in ("x", "y"))
    assert define(first, "small") != define(second, "small")


def test_an_arm_is_the_same_on_another_machine():
    arms = [
        Arm(about="a", settings={"data": Path(where) / "rows.jsonl", "seeded": True})
        for where in ("/a", "/b")
    ]
    folders = [Path("/a"), Path("/b")]
    one, other = (define(arm, "small", (), folder) for arm, folder in zip(arms, folders))
    assert one == other
    assert define(arms[0], "small") != define(arms[1], "small")


def test_settings_of_the_command_line_make_another_arm():
    arm = Arm(about="a", settings={"optimizer.lr": 1})
    assert define(arm, "small", ["optimizer.lr=2"]) != define(arm, "small")
