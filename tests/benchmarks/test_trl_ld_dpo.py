"""The committed comparison with TRL: it met its goals, covers what it should, and could have failed."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / "trl_ld_dpo.json").read_text())
    return found


def loss_of(result: dict[str, Any], case: str) -> float:
    (row,) = (row for row in result["rows"] if row["case"] == f"{case}: loss")
    return float(row["ours"])


def test_every_row_met_its_goal(result: dict[str, Any]) -> None:
    for row in result["rows"]:
        assert row["goal"] == (1e-9 if "float64" in row["case"] else 1e-4)
        assert row["met"] == (row["difference"] <= row["goal"])
        assert row["met"], row["case"]


def test_loss_and_gradients_were_compared_at_several_alphas_in_both_dtypes(result: dict[str, Any]) -> None:
    cases = {row["case"] for row in result["rows"]}
    for model, dtype, head in [
        ("gpt2", "float64", "plain"),
        ("gpt2", "float32", "own"),
        ("llama", "float32", "own"),
    ]:
        for alpha in (0.0, 0.25, 0.5, 0.75, 1.0):
            for what in ("loss", "gradient norm"):
                assert f"{model}, {dtype}, {head} head, ld_dpo alpha={alpha}: {what}" in cases


def test_the_goals_tell_one_alpha_from_another(result: dict[str, Any]) -> None:
    """Neighbouring alphas differ by far more than the goals: a wrong weight would have missed them."""
    losses = [
        loss_of(result, f"gpt2, float32, own head, ld_dpo alpha={a}") for a in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    assert all(abs(one - two) > 1e-2 for one, two in itertools.pairwise(losses))


def test_alpha_one_is_plain_dpo_on_both_sides(result: dict[str, Any]) -> None:
    head = "gpt2, float64, plain head"
    assert loss_of(result, f"{head}, ld_dpo alpha=1.0") == loss_of(result, f"{head}, dpo sigmoid")


def test_the_peer_was_the_pinned_version(result: dict[str, Any]) -> None:
    pins = (ROOT / "benchmarks" / "peers" / "trl.txt").read_text().splitlines()
    assert f"trl=={result['versions']['trl']}" in pins and result["versions"]["trl"] == "1.16.0"


def test_it_says_where_and_when_without_naming_the_machine(result: dict[str, Any]) -> None:
    assert set(result) == {"machine", "versions", "date", "commit", "rows"}
    assert set(result["machine"]) == {"system", "architecture", "processor", "cores", "python"}


@pytest.mark.peers
def test_the_comparison_runs_again(tmp_path: Path) -> None:
    if not (ROOT / ".venv-peers" / "trl" / "made-from.txt").exists():
        pytest.skip("TRL's environment isn't made: python -m benchmarks.trl_ld_dpo")
    from benchmarks.trl_ld_dpo import main

    rows = json.loads(main(tmp_path).read_text())["rows"]
    assert rows and all(row["met"] for row in rows)
