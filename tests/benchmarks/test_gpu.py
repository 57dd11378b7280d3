"""The GPU's benchmark where there's none: its refusals, its shapes, a dry run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, record


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_it_refuses_in_one_line(capsys):
    with pytest.raises(SystemExit) as left:
        gpu.main([])
    told = capsys.readouterr().err.splitlines()
    assert left.value.code == 2 and len(told) == 1 and told[0].startswith("error[NO-GPU]")


def test_a_dry_run_never_becomes_the_result(capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--dry-run"])
    assert capsys.readouterr().err.startswith("error[DRY-RUN]")


def test_the_shapes_are_of_the_sizes_that_they_are_named_for():
    """1.24 and 8.03 billion parameters, and 1.00 billion; tied heads count once."""
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {}
    for name, case in gpu.CASES.items():
        given = {key: value for key, value in case.shape.items() if key != "model_type"}
        with init_empty_weights():
            model = AutoModelForCausalLM.from_config(AutoConfig.for_model(case.shape["model_type"], **given))
        counted = {key: value.numel() for key, value in model.named_parameters()}
        if model.config.tie_word_embeddings:
            del counted["lm_head.weight"]
        sizes[name] = round(sum(counted.values()) / 1e9, 2)
    assert sizes == {"llama-1b": 1.24, "llama-8b-lora": 8.03, "gemma-3-1b": 1.0}


def test_the_sides_differ_in_nothing_but_whose_they_are():
    case = gpu.CASES["gemma-3-1b"]
    live, cached, trl, liger = gpu.sides_of(case, "cuda", dry=False)
    assert "trainer.recompute=layers" in live.settings
    assert set(live.settings) ^ set(cached.settings) == {"trainer.reference=copy", "trainer.reference=cache"}
    assert trl.settings == {"gradient_checkpointing": True}
    assert liger.settings == {"gradient_checkpointing": True, "use_liger_kernel": True}
    lora = gpu.sides_of(gpu.CASES["llama-8b-lora"], "cuda", dry=False)
    assert f"adapter.r={lora[2].settings['lora']}" in lora[0].settings  # type: ignore[call-overload,index]


def test_a_case_has_the_rows_that_its_goals_ask_for(pairs, told):
    """Twice TRL's speed; 3 GiB of the GPU's against 4, and against the 12 that are published."""
    task = replace(pairs, device="cuda", dtype="bfloat16")
    found = {name: told(task, name, 0.5, gpu_gib=3.0) for name in ("llmfw", "llmfw, cached reference")}
    found |= {name: told(task, name, 1.0, gpu_gib=4.0) for name in ("trl", "trl, liger")}
    rows = gpu.rows_of("llama-1b", gpu.CASES["llama-1b"], task, found, [1e12])
    assert [row["goal"] for row in rows if row["unit"] == "tokens/s"] == [1.3, None, None, None]
    assert all(row["met"] for row in rows if row["goal"])
    rows = gpu.rows_of("gemma-3-1b", gpu.CASES["gemma-3-1b"], task, found, [1e12])
    judged = {row["peer_name"]: row["ratio"] for row in rows if row["goal"]}
    assert judged == {"trl": 0.75, "trl, published": 0.25}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama-8b-lora", "gemma-3-1b"])
def test_a_dry_run_takes_every_step_that_it_can(tmp_path: Path, monkeypatch, name: str):
    monkeypatch.setattr(
        record, "environment", lambda environment: None
    )  # ours alone, also where TRL's is made
    words = ["--dry-run", "--repetitions", "1", "--threads", "1", "--cases", name, "--out", str(tmp_path)]
    told = json.loads(gpu.main(words).read_text())
    assert told["gpu"] == "no GPU: a dry run" and told["settings"]["tiny"]
    roofline = told["rows"][-1]
    assert roofline["kind"] == "roofline" and roofline["ours"] > 0
    if name == "gemma-3-1b":
        (published,) = [row for row in told["rows"] if row["peer_name"] == "trl, published"]
        assert published["peer"] == 12.0 and published["ours"] > 0.1


@pytest.mark.peers
@pytest.mark.slow
def test_a_dry_run_takes_trls_steps_where_its_environment_is_made(tmp_path: Path):
    if record.environment("trl") is None:
        pytest.skip("the environment of trl isn't made: python -m benchmarks.dpo_step")
    words = [
        "--dry-run",
        "--repetitions",
        "1",
        "--threads",
        "1",
        "--cases",
        "llama-1b",
        "--out",
        str(tmp_path),
    ]
    rows = json.loads(gpu.main(words).read_text())["rows"]
    assert {row["peer_name"] for row in rows} == {"trl"}
    assert [row["goal"] for row in rows if row["unit"] == "tokens/s"] == [1.3, None]
