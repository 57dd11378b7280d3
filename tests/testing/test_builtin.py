"""Every built-in plugin keeps the laws of its kinds, and skips no more of them than is committed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from llmfw.core import discovery
from llmfw.testing.check import check_plugin

SKIPS = Path(__file__).with_name("skips.json")
"""Plugin -> how many laws of its kinds find nothing to look at. A number may fall and never rise unseen:
``LLMFW_SKIPS=1 pytest tests/testing/test_builtin.py`` writes smaller ones down, and those of new plugins.
"""
BUILT_IN = sorted(name for name, card in discovery.cards().items() if card.distribution == "llmfw")


def committed() -> dict[str, int]:
    found: dict[str, int] = json.loads(SKIPS.read_text(encoding="utf-8"))
    return found


def lowered(before: dict[str, int], name: str, count: int) -> dict[str, int]:
    """The committed numbers with a plugin's own where it's new or smaller."""
    return dict(sorted({**before, name: min(count, before.get(name, count))}.items()))


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_plugin_keeps_the_laws_of_its_kinds(name: str):
    found = check_plugin(name)
    assert not {one.law: one.message for one in found if not one.good}
    skipped = {one.law: one.message for one in found if one.status == "skipped"}
    if os.environ.get("LLMFW_SKIPS"):
        text = json.dumps(lowered(committed(), name, len(skipped)), indent=2)
        SKIPS.write_text(f"{text}\n", encoding="utf-8")
    assert len(skipped) <= committed().get(name, -1), skipped


def test_numbers_are_committed_of_the_built_in_plugins_alone():
    assert sorted(committed()) == BUILT_IN


def test_a_committed_number_only_falls():
    assert lowered({"a": 2, "b": 1}, "a", 3) == {"a": 2, "b": 1}
    assert lowered({"a": 2, "b": 1}, "a", 1) == {"a": 1, "b": 1}
    assert lowered({"b": 1}, "a", 4) == {"a": 4, "b": 1}
