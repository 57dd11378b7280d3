"""The plugin in real runs: a tiny model, a few steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import llmfw
from llmfw.testing import plugin_module

pairs = plugin_module("my_method", "reproduce").pairs


def fit(folder: Path, plugin: str, *settings: str) -> Any:
    """Four steps over sums."""
    folder.mkdir()
    told = [f"{key}={value}" for key, value in pairs(folder).items()]
    return llmfw.fit(
        "model=tiny-llama",
        "adapter.kind=none",
        "data.options={}",
        "trainer.max_steps=4",
        "trainer.progress=false",
        "trainer.reference=copy",
        "tracking.mlflow=false",
        f"run.dir={folder / 'run'}",
        *told,
        *settings,
        plugins=[plugin],
    )


def test_the_neutral_setting_is_dpo_and_the_default_is_not(tmp_path: Path) -> None:
    dpo = fit(tmp_path / "dpo", "dpo", "dpo.answers=0").last
    neutral = fit(tmp_path / "neutral", "my_method", "my_method.flipped=0.0").last
    default = fit(tmp_path / "default", "my_method").last
    assert neutral["loss"] == dpo["loss"] and neutral["rewards/margins"] == dpo["rewards/margins"]
    assert default["loss"] != dpo["loss"]


def test_a_setting_outside_its_range_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(llmfw.LlmfwError, match=r"my_method\.flipped"):
        llmfw.plan("model=tiny-llama", "my_method.flipped=0.9", plugins=["my_method"])
