"""The rows, and a real run over them with a tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest

import llmfw
from llmfw.testing import plugin_module


def test_every_completion_is_the_sum() -> None:
    source = plugin_module("my_method", "plugin").Sums(count=50, digits=2, held_out=0.1, seed=0)
    for split, count in (("train", 50), ("validation", 5)):
        rows = list(source.rows(split))
        assert len(rows) == count
        for row in rows:
            left, right = row["prompt"].removesuffix(" =").split(" + ")
            assert int(row["completion"]) == int(left) + int(right)


def test_training_on_them_lowers_the_held_out_loss(tmp_path: Path) -> None:
    done = llmfw.fit(
        "trainer.max_steps=30",
        "trainer.micro_batch=8",
        "trainer.progress=false",
        "trainer.validation_limit=16",
        "tracking.mlflow=false",
        f"run.dir={tmp_path / 'run'}",
        plugins=["my_method"],
    )
    assert done.last["loss"] < done.first["loss"]
    assert done.validation["loss"] < done.first["loss"]


def test_a_share_of_zero_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(llmfw.LlmfwError, match=r"my_method\.held_out"):
        llmfw.plan("my_method.held_out=0", plugins=["my_method"])
