"""What every built-in plugin's folder looks like: wiring, documented settings, a README of known headings."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from llmfw.core import discovery

BUILT_IN = sorted(name for name, card in discovery.cards().items() if card.distribution == "llmfw")
HEADINGS = (
    "Idea",
    "Equation",
    "Use",
    "Settings",
    "Neutral setting",
    "Measured here",
    "Deviations from the paper",
)
WITHOUT_EQUATION = {"mplsandbox": "What it does"}
pytestmark = pytest.mark.parametrize("name", BUILT_IN)


def folder(name: str) -> Path:
    found = discovery.card(name).folder
    assert found is not None
    return found


def test_the_plugin_is_wiring_only(name: str) -> None:
    assert len((folder(name) / "plugin.py").read_text().splitlines()) <= 90
    assert (folder(name) / "__init__.py").read_text() == ""


def test_every_setting_says_what_it_means(name: str) -> None:
    for item in dataclasses.fields(discovery.load_class(discovery.card(name)).Config):
        assert item.metadata["help"]


def test_the_readme_is_a_method_card(name: str) -> None:
    """Settings of a family's frame stand in the family's baseline's README."""
    text = (folder(name) / "README.md").read_text()
    headings = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    wanted = [WITHOUT_EQUATION.get(name, one) if one == "Equation" else one for one in HEADINGS]
    assert headings == wanted
    config = discovery.load_class(discovery.card(name)).Config
    frames = [base for base in config.__mro__[1:] if dataclasses.is_dataclass(base)]
    shared = {item.name for base in frames for item in dataclasses.fields(base)} if name != "rft" else set()
    for item in dataclasses.fields(config):
        assert item.name in shared or f"`{name}.{item.name}`" in text, f"{item.name} isn't documented"
