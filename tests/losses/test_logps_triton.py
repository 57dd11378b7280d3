"""The Triton kernels without a GPU: interpreted, compiled for GPUs, chosen only when asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from llmfw.losses import logps_kernel
from llmfw.losses.logps import token_logps
from tests.losses.triton_cases import DTYPES, FORMS, SHAPES

ROOT = Path(__file__).parents[2]
BOUNDS = {"float32": 2e-6, "bfloat16": 2**-8, "float16": 2**-11}
"""Largest error relative to the largest entry: of a gradient in its input's dtype (one rounding) ..."""
VALUES = 5e-6
"""... and of log-probs, which are float32 throughout."""


def run(name: str, folder: Path, **environment: str) -> dict[str, dict[str, Any]]:
    out = folder / "out.json"
    done = subprocess.run(
        [sys.executable, "-m", f"tests.losses.{name}", str(out)],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(out.read_text())
    return found


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    pytest.importorskip("triton")
    return run("triton_cases", tmp_path_factory.mktemp("triton"), TRITON_INTERPRET="1")


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("form", list(FORMS))
def test_values_and_gradients_are_within_a_rounding_of_float64(
    errors: dict[str, dict[str, float]], dtype: str, form: str
) -> None:
    shapes = SHAPES[3::2] if form in ("tiled", "frozen") else SHAPES
    for shape in shapes:
        for kind, wrong in errors[f"{dtype} {shape} {form}"].items():
            assert wrong <= (VALUES if kind == "logps" else BOUNDS[dtype]), (shape, kind)


def test_half_precision_operands_are_accumulated_in_float32(errors: dict[str, dict[str, float]]) -> None:
    """As a GPU gets them; the flow alone is rounded."""
    found = errors["native"]
    assert found["lse"] <= VALUES and found["chosen"] <= VALUES
    assert 0 < found["flow"] <= BOUNDS["float16"]


def test_the_kernels_compile_for_gpus(tmp_path: Path) -> None:
    """bfloat16 uses tensor cores; shared memory stays below the 99 KiB of the smallest."""
    pytest.importorskip("triton")
    found = run("triton_compile", tmp_path, TRITON_CACHE_DIR=str(tmp_path / "cache"), TRITON_INTERPRET="0")
    assert len(found) == 4
    for name, facts in found.items():
        assert facts["bytes"] > 0 and facts["shared"] <= 99 * 1024, name
        assert facts["tensor_cores"], name


def small() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.ones(2, 4), torch.ones(5, 4), torch.tensor([0, 3])


def test_nobody_gets_the_kernels_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLMFW_HEAD", raising=False)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert logps_kernel.choose("auto", torch.ones(1, 1), torch.float32, False) == "tiles"
    monkeypatch.setenv("LLMFW_HEAD", "triton")
    pytest.importorskip("triton")
    assert logps_kernel.choose("auto", torch.ones(1, 1), torch.float32, False) == "triton or tiles"


def test_what_the_environment_asks_for_in_vain_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logps_kernel, "_said", set())
    monkeypatch.setenv("LLMFW_HEAD", "triton")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    pytest.importorskip("triton")
    first, second = token_logps(*small()), token_logps(*small())
    said = capsys.readouterr().err
    assert said.count("LLMFW_HEAD=triton is not followed: the tensors are on cpu") == 1
    monkeypatch.setenv("LLMFW_HEAD", "tiles")
    assert torch.equal(first, token_logps(*small())) and torch.equal(first, second)
    assert capsys.readouterr().err == ""


def test_an_argument_that_can_not_be_followed_is_an_error() -> None:
    hidden, weight, target = small()
    with pytest.raises(ValueError, match="can't be had: they don't compute in torch.float64"):
        token_logps(hidden.double(), weight.double(), target, kernel="triton")
    low_rank = (torch.ones(2, 4), torch.ones(5, 2), 1.0)
    with pytest.raises(ValueError, match="can't be had: they have no low-rank term"):
        token_logps(hidden, weight, target, low_rank=low_rank, kernel="triton")


def test_an_unknown_name_in_the_environment_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMFW_HEAD", "fast")
    with pytest.raises(ValueError, match="LLMFW_HEAD=fast: must be one of tiles, triton"):
        token_logps(*small())


@pytest.mark.parametrize("broken", ["scan", "flows"])
def test_a_kernel_that_fails_gives_way_with_a_note(
    broken: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Outside the interpreter a launch on the CPU fails as one on a GPU would: at the launch."""
    pytest.importorskip("triton")
    from llmfw.losses import logps_triton

    def fail(*_: Any) -> Any:
        raise RuntimeError("out of resource: shared memory\nmore")

    hidden, weight, target = small()
    want = torch.autograd.grad(
        token_logps(hidden.requires_grad_(), weight.requires_grad_(), target).sum(), weight
    )
    monkeypatch.setattr(logps_kernel, "_said", set())
    monkeypatch.setenv("LLMFW_HEAD", "triton")
    monkeypatch.setattr(logps_kernel, "_missing", lambda *_: "")
    if broken == "flows":
        monkeypatch.setattr(logps_triton, "scan", lambda head: head.scan(pull=False))
    monkeypatch.setattr(logps_triton, broken, fail)
    got = torch.autograd.grad(token_logps(hidden, weight, target).sum(), weight)
    assert torch.equal(got[0], want[0])
    assert "the kernel failed with RuntimeError: out of resource: shared memory;" in capsys.readouterr().err
    if broken == "scan":
        with pytest.raises(RuntimeError, match="out of resource"):
            token_logps(hidden, weight, target, kernel="triton")
