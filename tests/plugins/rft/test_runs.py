"""Rounds of each objective, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmfw.testing import Runner

SMALL = (
    "model=tiny-llama", "data=chain-arithmetic", "data.options.levels=1", "data.options.largest=3",
    "data.options.train=8", "data.options.validation=2", "rft.rounds=1", "rft.samples=4", "rft.problems=2",
    "trainer.micro_batch=8", "trainer.epochs=1", "optimizer.lr=1e-2", "generation.max_new_tokens=16",
    "tracking.mlflow=false", "trainer.progress=false",
)  # fmt: skip
FEW = [setting for setting in SMALL if not setting.startswith(("model=", "rft.samples="))]
ON_POLICY = ("rft.gold=false", "rft.keep_gold=false", "rft.start=last", "rft.temperature=1")


@pytest.fixture(scope="module")
def solutions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learnt the problems' own solutions: some of its samples are right."""
    place = tmp_path_factory.mktemp("rft") / "run"
    told = Runner(place.parent)(
        "fit", "--plugin", "rft", *SMALL, "rft.gold_epochs=60", "rft.start=gold", "rft.keep_gold=false",
        f"run.dir={place}",
    )  # fmt: skip
    told.assert_ok()
    return place


def records(place: Path, index: int) -> list[dict]:
    return json.loads((place / "rounds" / f"{index:03d}" / "round.json").read_text())["records"]


def test_the_right_answers_are_trained_after_the_solutions(solutions: Path) -> None:
    """8 solutions; then of 32 answers those that are right, none of them with a reward."""
    first, second = records(solutions, 0), records(solutions, 1)
    assert len(first) == 8 and 0 < len(second) <= 32
    assert all("reward" not in record for record in second)
    line = json.loads((solutions / "rounds" / "001" / "summary.json").read_text())
    assert line["right"] * 32 == len(second) and line["training loss"] > 0


@pytest.mark.parametrize("objective", ["reinforce", "group_relative"])
def test_all_answers_are_trained_by_their_rewards(tmp_path: Path, solutions: Path, objective: str) -> None:
    """Advantages are above 0 where the reward is 1 and below it where it is 0, and not all of them are 0."""
    place = tmp_path / "run"
    told = Runner(tmp_path)(
        "fit", "--plugin", "rft", *FEW, f"model={solutions}/rounds/000/final", f"run.dir={place}",
        f"rft.objective={objective}", *ON_POLICY, "rft.samples=16",
    )  # fmt: skip
    told.assert_ok()
    found = records(place, 0)
    assert {record["reward"] for record in found} == {0.0, 1.0}
    gains = [(record["reward"], record["extra"]["advantage"]) for record in found]
    assert all(gain >= 0 if reward else gain <= 0 for reward, gain in gains) and any(
        gain for _, gain in gains
    )
    assert all(len(record["old_logps"]) > 0 for record in found)
    assert (place / "rounds" / "000" / "done.json").exists()


def test_without_its_settings_an_objective_is_refused_by_the_plan(tmp_path: Path) -> None:
    told = Runner(tmp_path)("plan", "--plugin", "rft", *SMALL, "rft.objective=reinforce")
    told.assert_failed(match="OBJECTIVE.*rft.gold=false rft.keep_gold=false", code=2)
