"""Whole runs: the neutral setting is plugin dpo bit for bit, and away from it something differs."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import llmfw
from llmfw.core.errors import ConflictError


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty sums with a right and a wrong answer, of different lengths."""
    draw, file = random.Random(0), tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows = []
    for number in range(20):
        right, wrong = " indeed" * draw.randint(0, 3), " perhaps" * draw.randint(0, 3)
        rows.append(
            {"prompt": f"{number} + 1?", "chosen": f"{number + 1}{right}", "rejected": f"{number + 2}{wrong}"}
        )
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def run(folder: Path, pairs: Path, plugin: str, *overrides: str) -> Any:
    return llmfw.fit(
        "model=tiny-llama", f"data={pairs}", f"run.dir={folder}", "trainer.max_steps=3",
        "trainer.progress=false", "optimizer.lr=0.01", "tracking.mlflow=false", "generation.max_new_tokens=4",
        f"{plugin}.answers=2", *overrides, plugins=[plugin],
    )  # fmt: skip


@pytest.mark.parametrize("mode", ["both", "policy_only"])
def test_the_neutral_setting_trains_the_same_weights_as_dpo_bit_for_bit(
    tmp_path: Path, pairs: Path, mode: str
) -> None:
    runs = [
        run(tmp_path / "dpo", pairs, "dpo"),
        run(tmp_path / "neutral", pairs, "ld_dpo", "ld_dpo.alpha=1.0", f"ld_dpo.ref_mode={mode}"),
        run(tmp_path / "half", pairs, "ld_dpo", "ld_dpo.alpha=0.5", f"ld_dpo.ref_mode={mode}"),
    ]
    baseline, neutral, half = (load_file(found.final / "adapter_model.safetensors") for found in runs)
    assert baseline.keys() == neutral.keys() == half.keys()
    assert all(torch.equal(baseline[name], neutral[name]) for name in baseline)
    assert any(not torch.equal(baseline[name], half[name]) for name in baseline)
    assert runs[0].last["loss"] == runs[1].last["loss"] != runs[2].last["loss"]


def test_a_run_reports_weighted_and_unweighted_values_intervals_and_answer_lengths(
    tmp_path: Path, pairs: Path
) -> None:
    found = run(tmp_path / "run", pairs, "ld_dpo")
    names = {"length/equal", "rewards/accuracies/chosen_longer", "rewards/accuracies/rejected_longer"}
    for group in ("rewards", "rewards_weighted"):
        names |= {f"{group}/{name}" for name in ("chosen", "rejected", "margins", "accuracies")}
    for group in ("logps", "logps_weighted", "length"):
        names |= {f"{group}/{name}" for name in ("chosen", "rejected")}
    assert names - {"rewards/accuracies/chosen_longer", "rewards/accuracies/rejected_longer"} <= set(
        found.last
    )
    assert set(found.validation) >= {
        "rewards/margins/low", "rewards/margins/high", "rewards/margins/n",
        "rewards/accuracies/low", "rewards/accuracies/high", "rewards/accuracies/n",
        "length/margin_correlation", "rewards_weighted/margins",
    }  # fmt: skip
    assert found.before["generated/n"] == found.after["generated/n"] == 2
    assert 0 < found.after["generated/length_mean"] <= 4


def test_two_preference_plugins_at_once_are_one_named_conflict(pairs: Path) -> None:
    with pytest.raises(ConflictError) as caught:
        llmfw.plan("model=tiny-llama", f"data={pairs}", plugins=["dpo", "ld_dpo"])
    assert "'dpo'" in str(caught.value) and "'ld_dpo'" in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_plan_names_the_loss_and_reads_no_weight(pairs: Path) -> None:
    plan = llmfw.plan("model=tiny-llama", f"data={pairs}", plugins=["ld_dpo"])
    assert plan.one("llmfw_loss").name == "ld_dpo"
    assert plan.hash == llmfw.plan("model=tiny-llama", f"data={pairs}", plugins=["ld_dpo"]).hash
