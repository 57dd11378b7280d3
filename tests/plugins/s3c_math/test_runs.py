"""Small runs: the neutral setting is plain training, rounds are sampled and trained, claims are whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import llmfw
from llmfw.testing import plugin_module

reproduce = plugin_module("s3c_math", "reproduce")
SMALL = (
    "model=tiny-llama", "data=chain-arithmetic", "data.options.levels=1-2", "data.options.train=8",
    "data.options.validation=4", "data.options.largest=20", "data.options.operations=+-",
    "trainer.max_steps=3", "trainer.epochs=null", "trainer.micro_batch=4", "trainer.progress=false",
    "trainer.threads=1", "tracking.mlflow=false", "generation.max_new_tokens=10", "optimizer.lr=0.01",
)  # fmt: skip
OURS = ("s3c_math.folds=2", "s3c_math.fold_epochs=null", "s3c_math.problems=2", "s3c_math.audit=2")


def fit(folder: Path, *settings: str, plugin: bool = True) -> Any:
    words = [*SMALL, *(OURS if plugin else ()), *settings, f"run.dir={folder}"]
    return llmfw.fit(*words, plugins=["s3c_math"] if plugin else [])


def weights(found: Any) -> dict[str, torch.Tensor]:
    return load_file(found.final / "model.safetensors")


def test_oracle_1_the_neutral_setting_trains_the_weights_of_plain_training_bit_for_bit(
    tmp_path: Path,
) -> None:
    """The wrong steps are found all the same, and enter nothing."""
    same = ("optimizer.schedule=cosine", "optimizer.warmup=0.05")
    own = ("s3c_math.source=both", "s3c_math.share_corrected=0.0", "s3c_math.rollouts=1")
    ours = fit(tmp_path / "ours", *own, *same)
    plain = fit(tmp_path / "plain", *same, plugin=False)
    one, other = weights(ours), weights(plain)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert ours.rounds == 3 and ours.by_round[-1]["mix/available"] > 0
    assert ours.by_round[-1]["mix/corrected"] == 0 and ours.last["loss"] == plain.last["loss"]


def test_a_run_trains_masks_and_measures_and_sequences_weigh_alike(tmp_path: Path) -> None:
    tokens, sequences = (
        fit(tmp_path / how, "s3c_math.source=perturbed", f"s3c_math.reduction={how}")
        for how in ("tokens", "sequences")
    )
    assert tokens.rounds == 1 and tokens.first["loss"] != sequences.first["loss"]
    records = json.loads((tokens.dir / "rounds/000/round.json").read_text())["records"]
    mine = [record for record in records if record["source"] == "s3c"]
    assert len(mine) == 11 and len(records) == 19  # 8 * 0.57 / 0.43 is 10.6
    for record in mine:
        wrong = "".join(one["text"] for one in record["segments"] if one["type"] == "wrong")
        kept = "".join(record["completion"][a:b] for a, b in record["spans"])
        assert len(kept) + len(wrong) == len(record["completion"])
    assert {"forced/recovered", "right/reflects", "mark_ratio", "forced/wrong_nll", "solved"} <= set(
        tokens.after
    )
    assert {"mark_ratio", "forced/wrong_nll"} <= set(tokens.before)


def test_arms_see_equally_many_tokens(tmp_path: Path) -> None:
    """1500 are asked for, whichever records they come from; a step has 400 at most."""
    seen = []
    for share in ("0.0", "0.57"):
        found = fit(
            tmp_path / share, "s3c_math.source=perturbed", f"s3c_math.share_corrected={share}",
            "s3c_math.tokens=1500", "trainer.max_steps=null", "trainer.epochs=1",
        )  # fmt: skip
        seen.append(found.cost.tokens)
    assert all(abs(count - 1500) <= 400 for count in seen)


def test_claims_are_those_of_the_sheet_and_arms_differ_by_the_plugins_settings_alone() -> None:
    metrics = {claim.id: claim.metric for claim in reproduce.CLAIMS[:3]}
    assert metrics == {
        "s3c_math.1": "forced/recovered", "s3c_math.2": "right/reflects", "s3c_math.3": "solved",
    }  # fmt: skip
    for claim in reproduce.CLAIMS[:-1]:
        arms = reproduce.arms(claim, 11, "small")
        assert {*claim.arms, *claim.controls} == set(arms) and len(arms) == 5
        same = [{k: v for k, v in arm.settings.items() if k not in _own(reproduce)} for arm in arms.values()]
        assert all(one == same[0] for one in same) and same[0]["s3c_math.tokens"] == 500_000
        assert same[0]["data.options.seed"] == 11  # once all seeds had the same problems
    assert reproduce.CLAIMS[-1].not_tested


def _own(module: Any) -> set[str]:
    return {key for _, settings in module.ARMS.values() for key in settings}


def test_settings_out_of_range_are_refused() -> None:
    for word in ("share_corrected=1.5", "source=guessed", "folds=1", "level=word", "tokens=0", "audit=-1"):
        with pytest.raises(llmfw.LlmfwError, match=f"s3c_math.{word.partition('=')[0]}"):
            llmfw.plan(*SMALL, f"s3c_math.{word}", plugins=["s3c_math"])
