"""``llmfw export`` on the command line: what it prints, and errors in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import llmfw
from llmfw.cli import run


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_prints_the_difference_and_the_next_commands(capfd: pytest.CaptureFixture[str]):
    assert run(["export", "tiny-llama", "--out", "given", "--license", "MIT"]) == 0
    out = capfd.readouterr().out
    assert "max |logit difference| 0 (exact), greedy tokens equal" in out
    assert "licence  MIT" in out and "vllm serve given --dtype float32" in out
    assert "llmfw chat model=given" in out and "license: mit" in Path("given/README.md").read_text()


def test_a_merge_into_another_base_than_the_trained_one_is_warned_of(capfd: pytest.CaptureFixture[str]):
    rows = [{"prompt": f"say {i}", "completion": f"it is {i}"} for i in range(6)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    llmfw.fit(
        "model=tiny-llama", "data=rows.jsonl", "adapter.kind=lora", "model.quantization=nf4",
        "trainer.max_steps=1", "tracking.mlflow=false", "run.dir=run",
    )  # fmt: skip
    capfd.readouterr()
    assert run(["export", "run", "--out", "merged", "--merge"]) == 0
    assert "warning: the adapter was fitted to the quantised base" in capfd.readouterr().err
    assert run(["export", "run", "--out", "apart"]) == 0
    assert "warning" not in capfd.readouterr().err


def test_json_is_the_result(capfd: pytest.CaptureFixture[str]):
    assert run(["export", "tiny-llama", "--out", "given", "--dtype", "bfloat16", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["dtype"] == "bfloat16" and found["format"] == "hf"
    assert 0 < found["difference"] <= found["bound"] and "llmfw-export.json" in found["files"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["tiny-lama"], "did you mean tiny-llama"),
        (["tiny-llama", "--merge"], "--merge: there is no adapter"),
        (["tiny-llama", "--format", "gguf", "--dtype", "float16"], "--gguf-type"),
        (["tiny-llama", "--step", "3"], "is no folder of a run"),
        (["tiny-llama", "--format", "zip"], "'zip' is not one of"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    words: list[str], says: str, here: Path, capfd: pytest.CaptureFixture[str]
):
    assert run(["export", *words, "--out", "given"]) == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error[")]
    assert says in line and list(here.iterdir()) == []


def test_help_names_every_option(capfd: pytest.CaptureFixture[str]):
    assert run(["export", "--help"]) == 0
    out = capfd.readouterr().out
    for option in ("--format", "--merge", "--dtype", "--gguf-type", "--max-shard-size", "--step", "--base",
                   "--license", "--overwrite", "--json"):  # fmt: skip
        assert option in out
