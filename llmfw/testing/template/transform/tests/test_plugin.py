"""The transform over rows, and in a real run with a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import llmfw
from llmfw.testing import plugin_module

ROWS = [
    {
        "id": f"row-{n}",
        "prompt": f"{n} + 1 = (a sum, in words or digits, as you like)",
        "completion": str(n + 1),
    }
    for n in range(12)
]


def fit(folder: Path, plugins: list[str], *settings: str) -> Any:
    """Three steps over sums that differ in few characters."""
    folder.mkdir()
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return llmfw.fit(
        "model=tiny-llama",
        f"data={data}",
        "data.validation=null",
        "adapter.kind=none",
        "trainer.max_steps=3",
        "trainer.micro_batch=2",
        "trainer.progress=false",
        "tracking.mlflow=false",
        f"run.dir={folder / 'run'}",
        *settings,
        plugins=plugins,
    )


def test_the_neutral_setting_keeps_every_row_and_the_default_does_not(tmp_path: Path) -> None:
    plain = fit(tmp_path / "plain", []).last["loss"]
    neutral = fit(tmp_path / "neutral", ["my_method"], "my_method.similarity=1.0").last["loss"]
    default = fit(tmp_path / "default", ["my_method"]).last["loss"]
    assert neutral == plain != default


def test_every_form_of_row_has_a_text() -> None:
    text_of = plugin_module("my_method", "plugin").text_of
    assert text_of({"prompt": "a", "chosen": "b", "rejected": "c", "id": "x"}) == "a\nb\nc"
    assert "hello" in text_of({"messages": [{"role": "user", "content": "hello"}]})


def test_of_no_rows_none_is_dropped() -> None:
    plugin = plugin_module("my_method", "plugin")
    told = plugin.MyMethod(plugin.MyMethod.Config()).apply([])
    assert (told.items, told.metrics) == ([], {"dropped": 0, "share": 0.0})


def test_a_similarity_above_one_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(llmfw.LlmfwError, match=r"my_method\.similarity"):
        llmfw.plan("model=tiny-llama", "my_method.similarity=1.5", plugins=["my_method"])
