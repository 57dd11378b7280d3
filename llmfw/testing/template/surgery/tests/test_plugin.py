"""The gates in a tiny model, and in a real run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import llmfw
from llmfw.testing import plugin_module
from llmfw.testing.pairs import tiny_llama

surgery = plugin_module("my_method", "surgery")
sums = plugin_module("my_method", "reproduce").sums


def test_the_model_is_unchanged_until_a_gate_moves() -> None:
    model, ids = tiny_llama(), torch.tensor([[1, 2, 3, 4]])
    before = model(ids).logits
    report = surgery.add_gates(model, torch.Generator(), scale=1.0)
    assert torch.equal(model(ids).logits, before)
    parameters = dict(model.named_parameters())
    assert len(report.changed) == model.config.num_hidden_layers and set(report.changed) <= set(parameters)
    with torch.no_grad():
        parameters[report.changed[0]].fill_(0.5)
    assert not torch.equal(model(ids).logits, before)


def test_twice_is_once() -> None:
    model, ids = tiny_llama(), torch.tensor([[1, 2, 3, 4]])
    first = surgery.add_gates(model, torch.Generator(), scale=1.0)
    with torch.no_grad():
        dict(model.named_parameters())[first.changed[0]].fill_(0.5)
    once = model(ids).logits
    assert surgery.add_gates(model, torch.Generator(), scale=1.0) == first
    assert torch.equal(model(ids).logits, once)


def fit(folder: Path, plugins: list[str], *settings: str) -> Any:
    """Four steps over sums."""
    folder.mkdir()
    told = [f"{key}={value}" for key, value in sums(folder).items()]
    return llmfw.fit(
        "model=tiny-llama",
        "adapter.kind=none",
        "optimizer.lr=0.01",
        "trainer.max_steps=4",
        "trainer.fused=off",  # a module of a surgery isn't fused: the same sums, in another order
        "trainer.progress=false",
        "tracking.mlflow=false",
        f"run.dir={folder / 'run'}",
        *told,
        *settings,
        plugins=plugins,
    )


def test_the_neutral_setting_is_the_model_as_it_is_and_the_default_is_not(tmp_path: Path) -> None:
    plain = fit(tmp_path / "plain", []).last["loss"]
    neutral = fit(tmp_path / "neutral", ["my_method"], "my_method.scale=0.0").last["loss"]
    default = fit(tmp_path / "default", ["my_method"]).last["loss"]
    assert neutral == plain != default


def test_a_negative_scale_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(llmfw.LlmfwError, match=r"my_method\.scale"):
        llmfw.plan("model=tiny-llama", "my_method.scale=-1", plugins=["my_method"])
