"""The form of results: rows, goals, files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import record


@pytest.mark.parametrize(
    ("goal", "met"),
    [
        (("at least", 2.0), True),
        (("at least", 2.1), False),
        (("at most", 2.0), True),
        (("at most", 1.9), False),
    ],
)
def test_a_goal_judges_the_ratio_of_ours_to_the_peers(goal, met):
    found = record.row("case", ours=6.0, peer=3.0, peer_name="p", unit="tokens/s", repetitions=3, goal=goal)
    assert found["ratio"] == 2.0 and found["met"] is met
    assert (found["goal_is"], found["goal"]) == goal


def test_a_goal_may_judge_another_value_than_the_ratio():
    found = record.row(
        "case", ours=6.0, peer=3.0, unit="nats", repetitions=1, goal=("at most", 1e-4), judged=1e-5
    )
    assert found["met"] and found["judged"] == 1e-5 and found["ratio"] == 2.0


def test_a_row_without_goal_or_peer_says_so():
    found = record.row("case", ours=6.0, unit="s", repetitions=1)
    assert (found["ratio"], found["peer"], found["goal"], found["met"]) == (None, None, None, None)


def test_a_goal_with_nothing_to_judge_is_refused():
    with pytest.raises(AssertionError, match="nothing to hold against its goal"):
        record.row("case", ours=6.0, unit="s", repetitions=1, goal=("at least", 2.0))


def test_a_result_says_where_when_and_with_what(tmp_path: Path):
    rows = [record.row("case", ours=1.0, unit="s", repetitions=1)]
    path = record.write("name", rows, versions={"peer": "1.0"}, folder=tmp_path, settings={"threads": 2})
    told = json.loads(path.read_text())
    assert path.name == "name.json" and told["rows"] == rows and told["settings"] == {"threads": 2}
    assert {"torch", "transformers", "peer"} == set(told["versions"]) and len(told["commit"]) == 40
    assert set(told["machine"]) == {"system", "architecture", "processor", "cores", "python"}


def test_parts_of_a_result_are_files_of_their_own_so_none_replaces_another(tmp_path: Path):
    rows = [record.row("case", ours=1.0, unit="s", repetitions=1)]
    for part in ("one", "two"):
        record.write("name", rows, part=part, versions={}, folder=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["name.one.json", "name.two.json"]


def test_an_environment_counts_only_while_its_pins_are_those_it_was_made_from(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "ROOT", tmp_path)
    pins = tmp_path / "benchmarks" / "peers" / "some.txt"
    pins.parent.mkdir(parents=True)
    pins.write_text("package==1.0\n")
    assert record.environment("some") is None
    folder = tmp_path / ".venv-peers" / "some"
    folder.mkdir(parents=True)
    (folder / "made-from.txt").write_text(record._digest("some"))
    assert record.environment("some") == folder / "bin" / "python"
    pins.write_text("package==2.0\n")
    assert record.environment("some") is None


def test_rows_are_told_with_what_became_of_their_goals(capsys):
    row, common = record.row, {"ours": 6.0, "repetitions": 1}
    record.tell(
        [
            row("fast", peer=3.0, peer_name="p", unit="tokens/s", goal=("at least", 2), **common),
            row("large", peer=3.0, peer_name="p", unit="GiB", goal=("at most", 1), **common),
            row("alone", unit="s", **common),
        ]
    )  # fmt: skip
    assert capsys.readouterr().out.splitlines() == [
        "met    fast: 6 tokens/s against 3 (p), ratio 2, goal at least 2",
        "MISSED large: 6 GiB against 3 (p), ratio 2, goal at most 1",
        "       alone: 6 s",
    ]
