"""Two gloo processes do what one does with the same global batch, and agree on every end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from llmfw.core.checkpoint import newest_verified, read_manifest
from llmfw.core.training.ranks import gradient_norm
from tests.toys import two_processes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("two")
    environment = {
        key: value for key, value in os.environ.items() if key not in ("LOCAL_RANK", "RANK", "WORLD_SIZE")
    }
    command = [sys.executable, "-m", "tests.toys.two_processes", str(folder)]
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        command,
        cwd=root,
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("one")
    for name in ("plain", "local"):
        two_processes.case(
            name, folder, two_processes.Validation(two_processes.measure, every=3), devices=1, strategy="auto"
        )
    return folder


def said(folder: Path, name: str, rank: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"{name}-{rank}.json").read_text())
    return found


def weights(folder: Path, name: str, rank: int = 0) -> dict[str, torch.Tensor]:
    return load_file(folder / f"{name}-{rank}.safetensors")


def test_two_processes_train_as_one_does(both: Path, alone: Path) -> None:
    one, two = said(alone, "plain"), said(both, "plain")
    assert [r["units"] for r in two["reports"]] == [r["units"] for r in one["reports"]]
    assert [r["tokens"] for r in two["reports"]] == [r["tokens"] for r in one["reports"]]
    for name in ("loss", "hits", "grad_norm", "lr"):
        pairs = zip(two["reports"], one["reports"], strict=True)
        assert all(a["metrics"][name] == pytest.approx(b["metrics"][name], rel=1e-5) for a, b in pairs), name
    for name, value in weights(alone, "plain").items():
        torch.testing.assert_close(weights(both, "plain")[name], value, rtol=1e-5, atol=1e-6)


def test_the_processes_end_with_the_same_weights_and_numbers_and_saw_different_samples(both: Path) -> None:
    for name, value in weights(both, "plain", 0).items():
        assert torch.equal(value, weights(both, "plain", 1)[name]), name
    first, second = said(both, "plain", 0), said(both, "plain", 1)
    assert [r["metrics"] for r in first["reports"]] == [r["metrics"] for r in second["reports"]]
    for a, b in zip(first["reports"], second["reports"], strict=True):
        assert not set(a["sample_ids"]) & set(b["sample_ids"])


def test_validation_is_shared_and_gives_everyone_the_mean_over_all(both: Path, alone: Path) -> None:
    step, expected = said(alone, "plain")["validation"]
    for rank in (0, 1):
        found_step, found = said(both, "plain", rank)["validation"]
        assert found_step == step == 3 and found["validation/units"] == expected["validation/units"]
        assert found["validation/loss"] == pytest.approx(expected["validation/loss"], rel=1e-5)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("name", ["plain", "local"])
def test_a_resumed_pair_is_the_pair_that_was_not_stopped(both: Path, name: str, rank: int) -> None:
    resumed = {"plain": "resumed", "local": "local-resumed"}[name]
    whole, rest = said(both, name, rank)["reports"], said(both, resumed, rank)["reports"]
    assert [r["metrics"] for r in rest] == [r["metrics"] for r in whole[2:]]
    for key, value in weights(both, name, rank).items():
        assert torch.equal(value, weights(both, resumed, rank)[key]), key


def test_parameters_of_one_process_stay_its_own_and_the_others_stay_equal(both: Path) -> None:
    first, second = weights(both, "local", 0), weights(both, "local", 1)
    assert not torch.equal(first["model.head.bias"], second["model.head.bias"])
    for name in set(first) - {"model.head.bias"}:
        assert torch.equal(first[name], second[name]), name
    norms = [[r["metrics"]["grad_norm"] for r in said(both, "local", rank)["reports"]] for rank in (0, 1)]
    assert norms[0] == norms[1], "both clip by one norm"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_nan_on_one_rank_stops_both_before_the_step(both: Path, rank: int) -> None:
    kind, text, code = said(both, "nan", rank)["error"]
    assert (kind, code) == ("NumericsError", 7) and "step 3" in text
    assert len(said(both, "nan", rank)["reports"]) == 2
    files = sorted(path.name for path in (both / "nan").glob("nonfinite*"))
    assert files == ["nonfinite-step-3-rank1.json", "nonfinite-step-3.json"]
    assert json.loads((both / "nan" / files[0]).read_text())["micro_batches"][0]["loss_sum"] == "nan"


def test_a_metric_that_only_one_rank_has_is_a_mean_over_those_that_have_it(both: Path) -> None:
    for rank in (0, 1):
        reports = said(both, "names", rank)["reports"]
        assert len(reports) == 4 and all("mine" in r["metrics"] and "hits" in r["metrics"] for r in reports)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_rank_ends_both_at_one_step_with_a_checkpoint(both: Path, rank: int) -> None:
    kind, text, code = said(both, "signal", rank)["error"]
    assert (kind, code) == ("Interrupted", 143), text
    step = len(said(both, "signal", rank)["reports"])
    assert step == len(said(both, "signal", 1 - rank)["reports"]) < two_processes.STEPS
    newest = newest_verified(both / "signal")
    assert newest is not None and read_manifest(newest).step == step


def test_the_norm_of_one_process_is_that_of_all_gradients() -> None:
    grads = {"a": torch.tensor([3.0]), "b": torch.tensor([[4.0]])}
    assert gradient_norm(grads, ("a",)).item() == 5.0
