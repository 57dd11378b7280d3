"""How long one waits: the rows, and our own commands as real processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import startup


def test_help_is_held_against_the_peers_help_and_the_rest_stands_alone():
    waits = {name: {"cold": [2.0, 3.0, 4.0], "warm": [1.0]} for name in startup.OURS}
    waits |= {name: {"cold": [9.0], "warm": [5.0]} for name in startup.THEIRS}
    rows = startup.rows_of(waits, {"llmfw": [10.0], "trl": [20.0], "litgpt": [5.0]})
    found = {(row["case"], row["peer_name"]): row for row in rows}
    assert len(found) == len(rows) == 2 * (2 + 1 + 1) + 2
    cold = found["llmfw --help, cold", "litgpt --help"]
    assert (cold["ours"], cold["peer"], cold["ours_spread"]) == (3.0, 9.0, [2.0, 4.0])
    assert cold["ratio"] == pytest.approx(1 / 3)
    assert found["llmfw plan, warm", None]["ours"] == 1.0
    assert found["first step, warm", "trl"]["ratio"] == 0.5


def test_a_folders_files_are_put_out_of_the_page_cache(tmp_path: Path):
    (tmp_path / "inner").mkdir()
    for name in ("one", "inner/two"):
        (tmp_path / name).write_text("text")
    (tmp_path / "link").symlink_to(tmp_path / "one")
    assert startup.put_out(tmp_path) == 2


def test_a_command_that_fails_says_why():
    ours = startup.commands(peers=False)["llmfw --help"]
    with pytest.raises(RuntimeError, match="there is no verb 'nonsense'"):
        startup.seconds([ours[0], "nonsense"], threads=1)


@pytest.mark.slow
def test_our_commands_are_timed(tmp_path: Path):
    words = ["--repetitions", "1", "--threads", "1", "--no-peers", "--out", str(tmp_path)]
    rows = json.loads(startup.main(words).read_text())["rows"]
    assert {row["case"] for row in rows} == {
        *(f"{name}, {state}" for name in startup.OURS for state in ("cold", "warm")), "first step, warm",
    }  # fmt: skip
    assert all(row["ours"] > 0.05 and row["peer"] is None for row in rows)
