"""The plugin in real runs of a tiny model, and what it claims."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

import llmfw
from llmfw import LlmfwError
from llmfw.plugins.critique_loop import reproduce

TINY = [
    "model=tiny-math", "data=chain-arithmetic", "data.options.levels=1-2", "data.options.largest=5",
    "data.options.train=8", "data.options.validation=4", "trainer.micro_batch=4", "trainer.threads=1",
    "trainer.progress=false", "tracking.mlflow=false", "checkpoint.every=0", "generation.max_new_tokens=24",
    "critique_loop.gold_epochs=1", "critique_loop.feedback_epochs=1", "critique_loop.critic_epochs=1",
    "critique_loop.keep_gold=true", "critique_loop.unparsed=use", "critique_loop.filter_keep=0",
    "critique_loop.samples=1", "critique_loop.rounds=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of no steps: each round's weights at its end are those with which it began."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = [
        *TINY,
        "trainer.epochs=null",
        "trainer.max_steps=0",
        "critique_loop.start=base",
        f"run.dir={folder}",
    ]
    llmfw.fit(*words, plugins=["critique_loop"])
    return folder


def test_oracle_11_every_round_begins_with_the_same_base_weights(untrained: Path) -> None:
    """SFT(base again): gold, actor, critic and both rounds of the loop, by the hash of the weights."""
    files = sorted(untrained.glob("rounds/*/final/model.safetensors"))
    assert len(files) == 5
    assert len({hashlib.sha256(file.read_bytes()).hexdigest() for file in files}) == 1


def test_the_run_keeps_its_own_records_and_measures_the_critic_in_its_round_alone(untrained: Path) -> None:
    kept = {file.name for file in (untrained / "critique_loop").iterdir()}
    assert kept == {"critiques.jsonl", "critic-records.jsonl", "traces-1.jsonl", "traces-2.jsonl"}
    lines = [json.loads(file.read_text()) for file in sorted(untrained.glob("rounds/*/summary.json"))]
    assert ["critic/unparsed" in line for line in lines] == [False, False, True, False, False]
    assert ["solved" in line for line in lines] == [True, True, False, True, True]


def test_champs_answers_can_be_asked_about_with_a_model_that_was_made_before() -> None:
    """Random weights write no critique that could be read, and that is told."""
    found = llmfw.evaluate(
        "model=tiny-llama", "models.critic=tiny-llama", "data=champ-first-wrong", "tracking.mlflow=false",
        "generation.max_new_tokens=4", "trainer.threads=1", "critique_loop.form=paper",
        "critique_loop.problems=8", plugins=["critique_loop"],
    )  # fmt: skip
    assert len(found.tables["critic"]) + found.metrics["critic/too_long"] == 8  # type: ignore[operator]
    assert found.metrics["critic/unparsed"] == 1.0


def test_a_run_with_preference_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LlmfwError, match=r"error\["):
        llmfw.plan("model=tiny-llama", plugins=["critique_loop", "dpo"])


def test_the_claims_are_those_of_the_project_and_have_arms() -> None:
    assert [claim.id for claim in reproduce.CLAIMS] == [f"critique_loop.{n}" for n in (1, 2, 3, 4)]
    for claim in reproduce.CLAIMS:
        for size, seeds in claim.seeds.items():
            made = reproduce.arms(claim, seeds[0], size)
            assert {*claim.arms, *claim.controls} <= set(made)
