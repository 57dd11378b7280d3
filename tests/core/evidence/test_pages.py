"""Tables, sections and plots are made from evidence.json alone, and are the same each time."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from llmfw.core.evidence.document import settle
from llmfw.core.evidence.pages import claim_tables, costs, section, spoken_cost, with_section, write_section

SCRIPTS = Path(__file__).parents[3] / "scripts"


def entry(**more: Any) -> dict[str, Any]:
    """A claim whose method is 2, 3, 4 above a baseline of 10, and 1 above a control."""
    values = {"plain": ("baseline", 10.0, 10.0, 10.0), "mine": ("method", 12.0, 13.0, 14.0),
              "other": ("control", 11.0, 12.0, 13.0)}  # fmt: skip
    arms = {
        name: {
            "about": name, "role": role, "values": {str(n): value for n, value in enumerate(of, 1)},
            "commits": {str(n): "c" * 40 for n in (1, 2, 3)}, "definitions": {},
        }
        for name, (role, *of) in values.items()
    }  # fmt: skip
    cost = {
        "mine": {"1": {"tokens": 100, "seconds": 2.0, "host_gib": 1.5}, "2": {"tokens": 200, "seconds": 4.0}}
    }
    told = {
        "id": "mine.1", "statement": "Mine | is more", "paper": "Table 1", "metric": "count",
        "unit": "words", "kind": "greater", "direction": "higher", "effect": 1.0, "items": False,
        "size": "small", "arms": arms, "failures": {}, "cost": cost,
    }  # fmt: skip
    return settle(told | more)


def evidence(*entries: dict[str, Any]) -> dict[str, Any]:
    return {
        "plugin": "mine", "claims": list(entries), "command": "llmfw reproduce mine", "commit": "c" * 40,
        "versions": {}, "machine": "a machine", "date": "2026-01-02",
    }  # fmt: skip


UNTESTED = {
    "id": "mine.2", "statement": "It is fast", "paper": "Table 2", "metric": "", "unit": "",
    "kind": "greater",
    "direction": "higher", "effect": 0.0, "items": False, "size": None, "arms": {}, "verdict": "not tested",
    "why": "Needs a GPU.",
}  # fmt: skip


def test_a_row_has_the_papers_figure_means_intervals_differences_and_the_verdict():
    (table,) = claim_tables(evidence(entry()))
    assert table.splitlines()[2] == (
        "| `mine.1` Mine \\| is more (`count` words; higher by at least 1) | Table 1 "
        "| plain (baseline) 10 [10, 10]<br>mine (method) 13 [10.52, 15.48]<br>"
        "other (control) 12 [9.516, 14.48] "
        "| 3 [0.5159, 5.484]<br>to other 1 [1, 1] "
        "| **reproduced**: the interval is above 0 and the mean is at least 1 | small, 3 seeds |"
    )


def test_what_was_not_tested_stands_below_with_why():
    _, untested = claim_tables(evidence(entry(), UNTESTED))
    assert untested == "- `mine.2` not tested: It is fast (the paper: Table 2) Needs a GPU."


def test_costs_are_means_of_seeds_and_peaks():
    ((size, name, cost),) = costs(evidence(entry(), entry(id="mine.3")))
    assert (size, name) == ("small", "mine")
    assert spoken_cost(cost) == "3 s, 150 tokens, 1.50 GiB"


def test_a_section_ends_with_cost_command_commit_and_machine():
    text = section(evidence(entry()))
    assert "mine (small) 3 s, 150 tokens, 1.50 GiB." in text
    assert "`llmfw reproduce mine` on 2026-01-02, at commit cccccccccc; a machine." in text


def test_only_what_stands_between_the_marks_is_written(tmp_path):
    text = "# mine\n<!-- evidence -->\nold\n<!-- /evidence -->\nthe end\n"
    new = with_section(text, None)
    assert new == "# mine\n<!-- evidence -->\nNothing was measured yet.\n<!-- /evidence -->\nthe end\n"
    assert with_section(new, None) == new
    assert with_section("# mine\n", evidence(entry())) is None
    (tmp_path / "README.md").write_text(text)
    assert write_section(tmp_path) == []
    assert (tmp_path / "README.md").read_text() == new


LEVEL = {"kind": "level", "effect": 12.5}
ITEMS = {"items": True}


def level() -> dict[str, Any]:
    told = entry()
    arms = {"mine": told["arms"]["mine"]}
    return settle({**told, **LEVEL, "arms": arms})


def of_items() -> dict[str, Any]:
    told = entry()
    for n, name in enumerate(("plain", "mine", "other")):
        told["arms"][name]["values"] = {"1": [1.0 + n, 2.0 + n, 4.0 * n]}
    return settle({**told, **ITEMS})


def single() -> dict[str, Any]:
    told = entry()
    for arm in told["arms"].values():
        arm["values"] = {"1": arm["values"]["1"]}
    return settle(told)


@pytest.mark.parametrize("made", [entry, level, of_items, single])
def test_a_plot_is_drawn_the_same_each_time_with_its_texts_as_text(monkeypatch, made):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from docpages.evidence import plot

    drawn = plot(evidence(made(), UNTESTED))
    assert plot(evidence(made(), UNTESTED)) == drawn
    root = ET.fromstring(drawn)
    texts = ["".join(one.itertext()) for one in root.iter("{http://www.w3.org/2000/svg}text")]
    assert any("mine.1  count (words), small" in " ".join(text.split(" ")) for text in texts), texts
    assert not any("mine.2" in text for text in texts)
    assert "prefers-color-scheme: dark" in drawn
    assert "dc:date" not in drawn


def test_the_page_and_plots_do_not_hang_on_the_process():
    """Hash seeds differ between processes; the drawing mustn't."""
    script = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from tests.core.evidence.test_pages import entry, evidence\n"
        "from docpages.evidence import plot\n"
        "print(plot(evidence(entry())))"
    )
    command = [sys.executable, "-c", script, str(SCRIPTS), str(SCRIPTS.parent)]
    first, second = (
        subprocess.run(
            command, check=True, capture_output=True, env={"PYTHONHASHSEED": seed, "PATH": ""}
        ).stdout
        for seed in ("1", "2")
    )
    assert first == second
