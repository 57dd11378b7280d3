"""Plugins are found by their cards, and imported only when named."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from llmfw.core import discovery
from llmfw.core.errors import PluginError, UsageError
from tests.toys import installed, write_toy

PLAIN = "from llmfw.core.plugin import Plugin\nclass Toy(Plugin):\n    pass\n"


def test_cards_are_read_without_importing_any_part_of_the_plugin(tmp_path: Path):
    write_toy(
        tmp_path, "quiet", "raise RuntimeError('imported')", card='kinds = ["loss"]\nneeds = ["Rater"]\n'
    )
    (tmp_path / "toy_quiet" / "__init__.py").write_text("raise RuntimeError('imported')")
    with installed(tmp_path):
        card = discovery.cards()["quiet"]
        assert (card.kinds, card.needs, card.origin) == (("loss",), ("Rater",), "toy-quiet 1.0")
        assert "toy_quiet" not in sys.modules


def test_a_plugin_without_a_card_takes_its_summary_from_the_distribution(tmp_path: Path):
    write_toy(tmp_path, "bare", PLAIN, card=None)
    with installed(tmp_path):
        assert discovery.cards()["bare"].summary == "a toy"


def test_an_unknown_plugin_is_refused_with_the_nearest_installed_names(tmp_path: Path):
    write_toy(tmp_path, "gentle", PLAIN)
    with installed(tmp_path), pytest.raises(UsageError, match="did you mean gentle"):
        discovery.card("gentel")


@pytest.mark.parametrize(
    ("card", "word"),
    [
        ("color = 'red'", "color"),
        ("kinds = [", "unreadable"),
        ("[commands]\na = 'x'\nb = 'y'", "at most one verb"),
        ("kinds = ['lost']", "kinds: unknown kind 'lost'; use some of loss, sampler"),
        ("kinds = 'loss'", "kinds: 'loss' isn't a list of words"),
        ("api = ['one']", "api: .* is no range"),
        ("api = [2, 1]", "api: .* is no range"),
        ("paper = 'mine'", "paper: 'mine' is no table"),
        ("[neutral]\nbase = 'x'", "neutral.base: unknown key 'base'; use one of baseline, exact"),
        ("[neutral.settings]\nalpha = 1", "neutral.baseline: .* have no baseline"),
        ("[neutral]\nbaseline = 'x'\nsettings = {alpha = [1]}", "neutral.settings.alpha: .* a plain value"),
        ("[neutral]\nexact = 'yes'", "neutral.exact: 'yes' is neither true nor false"),
        ("[neutral]\ntolerance = 0", "neutral.tolerance: the tolerance is 0"),
        (
            "[neutral]\nexact = true\ntolerance = 1e-6",
            "neutral.tolerance: .* exact is true; .* without a tolerance",
        ),
        ("[conformance]\nskip = 'x'", "conformance.skip: unknown key"),
        ("[conformance.xfail]\ncard = ' '", "conformance.xfail.card: .* a reason in words"),
        ("[conformance.settings]\ntrainer.threads = 1", "conformance.settings.trainer: .* in quotes"),
    ],
)
def test_a_broken_card_harms_nobody_until_the_plugin_is_named(tmp_path: Path, card: str, word: str):
    write_toy(tmp_path, "torn", PLAIN, card=card)
    write_toy(tmp_path, "whole", PLAIN)
    with installed(tmp_path):
        assert "whole" in discovery.cards() and "torn" not in discovery.cards()
        with pytest.raises(PluginError, match=word) as caught:
            discovery.card("torn")
        assert "card.toml" in str(caught.value)


def test_one_name_over_two_distributions_is_an_error_that_names_both(tmp_path: Path):
    write_toy(tmp_path, "twin", PLAIN)
    info = tmp_path / "other_twin-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-twin\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text("[llmfw.plugins]\ntwin = other_twin.plugin:Toy\n")
    with installed(tmp_path), pytest.raises(PluginError) as caught:
        discovery.card("twin")
    assert caught.value.exit_code == 4
    assert "toy-twin" in str(caught.value) and "other-twin" in str(caught.value)


@pytest.mark.parametrize(
    "source",
    ["import nothing_of_that_name", "def broken(:\n", "raise SystemExit(0)", "raise ValueError('no')"],
)
def test_a_plugin_that_fails_on_import_is_named_with_its_file_and_line(tmp_path: Path, source: str):
    write_toy(tmp_path, "rotten", "\n" + source)
    with installed(tmp_path), pytest.raises(PluginError) as caught:
        discovery.load_class(discovery.card("rotten"))
    assert caught.value.exit_code == 4
    assert f"{tmp_path}/toy_rotten/plugin.py:2" in str(caught.value) and "toy-rotten 1.0" in str(caught.value)


def test_an_entry_point_that_is_no_plugin_is_refused(tmp_path: Path):
    write_toy(tmp_path, "alien", "class Toy:\n    pass\n")
    with installed(tmp_path), pytest.raises(PluginError, match=r"subclass of llmfw\.Plugin"):
        discovery.load_class(discovery.card("alien"))
