"""A run of rounds that is cut between a round's training and its mark goes on behind that training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import llmfw
from llmfw.core.failpoints import Failpoint, armed
from llmfw.core.tracking import read_journal

SETTINGS = (
    "model=tiny-llama", "data=chain-arithmetic", "data.options.levels=1", "data.options.largest=5",
    "data.options.train=8", "data.options.validation=2", "rft.rounds=1", "rft.samples=1", "rft.problems=2",
    "rft.keep_gold=true", "trainer.micro_batch=8", "trainer.epochs=1", "generation.max_new_tokens=4",
    "tracking.mlflow=false", "trainer.progress=false", "run.dir=run",
)  # fmt: skip


def test_a_round_that_is_trained_but_not_marked_so_is_told_again_and_not_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its journal, its record and its line stay as they were; the run's journal has each round once."""
    monkeypatch.chdir(tmp_path)
    with armed("loop.before_done:1:raise"), pytest.raises(Failpoint):
        llmfw.fit(*SETTINGS, plugins=["rft"])
    place = Path("run/rounds/000")
    kept = {name: (place / name).read_bytes() for name in ("journal.jsonl", "summary.json", "run.json")}
    assert not (place / "done.json").exists()
    result = llmfw.fit(*SETTINGS, plugins=["rft"], resume="auto")
    assert {name: (place / name).read_bytes() for name in kept} == kept
    assert result.rounds == 2
    told = read_journal(Path("run/journal.jsonl")).series["round/training loss"]
    assert [step for step, _ in told] == [1, 2]
    assert told[0][1] == json.loads(kept["summary.json"])["training loss"]


def test_the_last_round_may_be_the_one_that_was_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result is that of a run that was never cut: the round's metrics, read from its journal."""
    monkeypatch.chdir(tmp_path)
    with armed("loop.before_done:2:raise"), pytest.raises(Failpoint):
        llmfw.fit(*SETTINGS, plugins=["rft"])
    cut = llmfw.fit(*SETTINGS, plugins=["rft"], resume="auto")
    whole = llmfw.fit(*SETTINGS, "run.dir=whole", plugins=["rft"])
    assert cut.last["loss"] == whole.last["loss"] and cut.validation == whole.validation
    assert cut.after == whole.after and (cut.steps, cut.name) == (whole.steps, whole.name) == (2, "rft")
