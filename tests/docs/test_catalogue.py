"""The README's table of methods: every plugin that comes with llmfw, its paper, how its claims came out."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from llmfw.core import discovery
from llmfw.core.evidence.document import read_evidence
from tests.architecture.conftest import ROOT


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from docpages import evidence

    return evidence


def entries(*verdicts: str) -> dict[str, list[dict[str, str]]]:
    return {"claims": [{"verdict": verdict} for verdict in verdicts]}


def test_verdicts_are_counted_in_their_own_order(page):
    """Two reproduced, one not tested; nothing is said of verdicts that no claim has."""
    found = page.came_out(discovery.card("gsi"), entries("not tested", "reproduced", "reproduced"))
    assert found == "2 reproduced, 1 not tested"


def test_a_plugin_without_evidence_owes_some_if_it_states_claims(page):
    """gsi states claims; dpo is a baseline and states none."""
    assert page.came_out(discovery.card("gsi"), None) == "no evidence yet"
    assert page.came_out(discovery.card("dpo"), None) == "none of its own"


def test_every_built_in_plugin_stands_in_the_readme_with_its_paper_and_all_its_verdicts():
    table = (ROOT / "README.md").read_text(encoding="utf-8").split("methods -->")[1]
    rows = {name: row for row in table.splitlines() for name in re.findall(r"^\| \[`(\w+)`\]", row)}
    cards = {name: card for name, card in discovery.cards().items() if card.distribution == "llmfw"}
    assert rows.keys() == cards.keys()
    for name, card in cards.items():
        assert f"https://arxiv.org/abs/{card.paper['arxiv']}" in rows[name]
        assert card.summary in rows[name]
        evidence = read_evidence(card.folder)
        told = Counter(entry["verdict"] for entry in evidence["claims"]) if evidence else Counter()
        last = rows[name].rsplit("|", 2)[1]
        shown = {verdict: int(count) for count, verdict in re.findall(r"(\d+) ([a-z ]+[a-z])", last)}
        assert shown == told, name
