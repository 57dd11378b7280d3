"""``llmfw plugins``: what is installed, and one of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from llmfw.cli import run
from tests.toys import installed, write_toy

SOURCE = """
from dataclasses import dataclass, field
from llmfw.core.plugin import Plugin

class Toy(Plugin):
    @dataclass
    class Config:
        alpha: float = field(default=0.5, metadata={"help": "weight of the tail, 0 to 1"})
"""
CARD = """
kinds = ["loss"]
offers = ["Rater"]
[paper]
title = "On toys"
authors = ["A. Maker", "B. Player"]
arxiv = "0000.00000"
[neutral]
baseline = "plain"
exact = true
[neutral.settings]
alpha = 1.0
"""


@pytest.fixture
def site(tmp_path: Path):
    write_toy(tmp_path, "mytoy", SOURCE, card=CARD, overlay="optimizer: {lr: 1e-4}\n")
    (tmp_path / "toy_mytoy" / "README.md").write_text("# mytoy\nIt plays.\n")
    write_toy(tmp_path, "unread", SOURCE, card="kinds = [\n")
    with installed(tmp_path):
        yield tmp_path


def test_the_list_shows_every_card_and_warns_of_broken_ones_without_importing(site: Path, capsys):
    for words in (["plugins"], ["plugins", "list"]):
        assert run(words) == 0
        told = capsys.readouterr()
        line = next(line for line in told.out.splitlines() if line.startswith("mytoy"))
        assert line.split()[:4] == ["mytoy", "loss", "toy-mytoy", "1.0"] and line.endswith("a toy")
        assert "warning: error[CARD]" in told.err and "unread" in told.err
    assert "toy_mytoy.plugin" not in sys.modules
    assert run(["plugins", "list", "--json"]) == 0
    assert next(card for card in json.loads(capsys.readouterr().out) if card["name"] == "mytoy")[
        "offers"
    ] == ["Rater"]


def test_show_tells_card_paper_settings_neutral_setting_and_readme(site: Path, capsys):
    assert run(["plugins", "show", "mytoy"]) == 0
    text = capsys.readouterr().out
    for part in (
        "from toy-mytoy 1.0", "offers: Rater", "paper: On toys", "A. Maker, B. Player", "arXiv 0000.00000",
        "mytoy.alpha  (float; default 0.5)", "weight of the tail, 0 to 1", "optimizer: {lr: 1e-4}",
        "neutral setting: mytoy.alpha=1.0 is exactly plain", "It plays.",
    ):  # fmt: skip
        assert part in text


def test_an_unknown_or_broken_plugin_is_one_line(site: Path, capsys):
    assert run(["plugins", "show", "mytoi"]) == 2
    assert "did you mean mytoy" in capsys.readouterr().err
    assert run(["plugins", "show", "unread"]) == 4
    assert capsys.readouterr().err.startswith("error[CARD]")
