"""The sampler with a policy that follows a script, and in a real run with a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import llmfw
from llmfw.testing import plugin_module

ROWS = [{"id": f"row-{n}", "prompt": f"{n} + 1 =", "completion": str(n + 1)} for n in range(12)]


def test_the_best_answer_takes_the_given_ones_place() -> None:
    """Of the answers ? and n + 1 the second has the score 1, the first 0."""
    sampler = plugin_module("my_method", "sampler")

    def sample(rows: list[dict[str, Any]]) -> list[list[llmfw.Completion]]:
        return [
            [
                llmfw.Completion(text=text, ids=(1,), prompt_tokens=1, finish="stop")
                for text in ("?", row["completion"])
            ]
            for row in rows
        ]

    made = sampler.best_of(ROWS, sample, share=1.0)
    assert [row["completion"] for row in made.records] == [row["completion"] for row in ROWS]
    assert made.notes == {"sampled": 1.0, "score": 1.0}
    assert [row["id"] for row in made.records] == [row["id"] for row in ROWS]


def fit(folder: Path, plugins: list[str], *settings: str) -> Any:
    """Three steps over sums."""
    folder.mkdir()
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return llmfw.fit(
        "model=tiny-llama",
        f"data={data}",
        "adapter.kind=none",
        "trainer.max_steps=3",
        "trainer.micro_batch=2",
        "trainer.progress=false",
        "generation.max_new_tokens=4",
        "tracking.mlflow=false",
        f"run.dir={folder / 'run'}",
        *settings,
        plugins=plugins,
    )


def test_the_neutral_setting_is_plain_fine_tuning_and_the_default_is_not(tmp_path: Path) -> None:
    plain = fit(tmp_path / "plain", []).last["loss"]
    neutral = fit(tmp_path / "neutral", ["my_method"], "my_method.share=0.0").last["loss"]
    default = fit(tmp_path / "default", ["my_method"], "my_method.share=1.0", "my_method.samples=4")
    assert neutral == plain != default.last["loss"]
    ledger = json.loads((default.dir / "ledger.json").read_text())
    assert ledger["best_of"]["samples"] == 4 * ledger["best_of"]["prompts"] > 0


def test_a_share_above_one_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(llmfw.LlmfwError, match=r"my_method\.share"):
        llmfw.plan("model=tiny-llama", "my_method.share=2", plugins=["my_method"])
