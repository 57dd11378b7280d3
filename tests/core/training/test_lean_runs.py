"""Whole runs with ``trainer.fused``, ``trainer.recompute`` and ``trainer.compile``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import llmfw
from llmfw.core.errors import UsageError
from llmfw.core.tracking import read_journal

QUIET = ("model=tiny-llama", "trainer.progress=false", "tracking.mlflow=false", "data=rows.jsonl")
DROPOUT = ("adapter.kind=lora", "adapter.dropout=0.2", "trainer.accumulate=2")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"id": f"r{i}", "prompt": f"say {i}", "completion": f"it is {'very ' * i}{i}"} for i in range(20)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _weights(result: Any) -> dict[str, torch.Tensor]:
    (file,) = result.final.glob("*model.safetensors")
    found: dict[str, torch.Tensor] = load_file(file)
    return found


def _series(result: Any, name: str = "loss") -> list[float]:
    return [value for _, value in read_journal(result.dir / "journal.jsonl").series[name]]


def _same(left: Any, right: Any) -> bool:
    ours, theirs = _weights(left), _weights(right)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_what_is_made_again_changes_no_bit_of_a_run_and_fusing_none_of_its_first_loss(
    capfd: pytest.CaptureFixture[str],
) -> None:
    words = (*QUIET, *DROPOUT, "trainer.max_steps=2")
    plain = llmfw.fit(*words)
    said = capfd.readouterr().err
    assert "fused: " in said and "gated MLPs" in said and "norms" in said
    for policy in ("elementwise", "layers"):
        assert _same(llmfw.fit(*words, f"trainer.recompute={policy}"), plain), policy
    capfd.readouterr()
    apart = llmfw.fit(*words, "trainer.fused=off")
    assert "fused: " not in capfd.readouterr().err
    assert _series(apart)[0] == _series(plain)[0]
    assert _series(apart) == pytest.approx(_series(plain), rel=1e-5)
    assert _series(apart, "grad_norm") == pytest.approx(_series(plain, "grad_norm"), rel=1e-5)


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler on PATH")
def test_a_compiled_run_that_is_stopped_and_resumed_is_the_run_that_was_not_to_the_bit(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The resumed run compiles anew, and the first batch that it sees is of another length. The fourth
    step is cut in its middle, and an error's checkpoint holds the three before it.
    """
    from llmfw.core.models.regions import _kernels

    words = (*QUIET, *DROPOUT, "trainer.max_steps=6", "checkpoint.every=2", "trainer.compile=layers")
    whole = llmfw.fit(*words, "run.dir=whole")
    assert "compiled norm of [tokens, " in capfd.readouterr().err
    eager = llmfw.fit(*words, "trainer.compile=none", "run.dir=eager")
    assert _series(whole) == pytest.approx(_series(eager), rel=1e-5)
    assert _series(whole, "grad_norm") == pytest.approx(_series(eager, "grad_norm"), rel=1e-4)

    monkeypatch.setenv("LLMFW_FAILPOINT", "train.mid_accum:4:raise")
    with pytest.raises(BaseException, match="mid_accum"):
        llmfw.fit(*words, "run.dir=cut")
    monkeypatch.delenv("LLMFW_FAILPOINT")
    torch._dynamo.reset()
    _kernels.cache_clear()
    capfd.readouterr()
    resumed = llmfw.fit(*words, "run.dir=cut", resume="must")
    said = capfd.readouterr().err
    assert "from step 3" in said and "compiled norm of [tokens, " in said
    assert _same(resumed, whole)
    assert _series(resumed) == _series(whole)


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("trainer.fused=off", "trainer.compile=layers"), "trainer.compile"),
        (("trainer.fused=off", "trainer.recompute=elementwise"), "trainer.recompute"),
    ],
)
def test_settings_that_exclude_one_another_are_refused_by_their_key(words: Any, key: str) -> None:
    with pytest.raises(UsageError, match=rf"error\[CONFIG-RANGE\].*{key}"):
        llmfw.fit(*QUIET, "trainer.max_steps=1", *words)
