"""``llmfw plan --estimate``: what it prints, and that it reads no weight."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmfw.testing.runner import Runner


@pytest.fixture
def quick(monkeypatch: Any) -> None:
    from llmfw.core.estimate import estimate

    monkeypatch.setattr(estimate, "BUDGET", 0.5)


@pytest.mark.usefixtures("quick")
def test_the_estimate_tells_memory_time_and_work(runner: Runner, rows_file: Callable[..., Path]) -> None:
    done = runner("plan", "--estimate", "model=tiny-llama", f"data={rows_file()}").assert_ok()
    for word in ("weights", "optimizer's state", "libraries and data", "peak ", "+-15%", "+-30%", "GFLOP"):
        assert word in done.output


@pytest.mark.usefixtures("quick")
def test_its_json_holds_the_same_numbers(runner: Runner, rows_file: Callable[..., Path]) -> None:
    """Parts add up to the peak; a step of 3 x 2 samples of the 12 (data.validation=0: none held out)."""
    words = ("trainer.micro_batch=3", "trainer.accumulate=2", "data.validation=0", "trainer.max_steps=4")
    done = runner(
        "plan", "--estimate", "--json", "model=tiny-llama", f"data={rows_file()}", *words
    ).assert_ok()
    told = json.loads(done.output)["estimate"]
    assert sum(told["peak"]["parts"].values()) == told["peak"]["total"]
    assert (told["samples"], told["steps"], told["trained"]) == (6, 4, _parameters())
    assert told["positions"] >= told["tokens"] > 0
    assert told["seconds"]["step"] > 0
    assert told["seconds"]["total"] == pytest.approx(4 * told["seconds"]["mean"])
    assert told["uncertainty"] == {"memory": 0.15, "seconds": 0.3}


@pytest.mark.usefixtures("quick")
def test_no_weight_is_read(runner: Runner, rows_file: Callable[..., Path], monkeypatch: Any) -> None:
    """The functions that read, draw or hash a model's weights aren't called."""
    from llmfw.core.models import build

    def forbidden(*_: Any, **__: Any) -> Any:
        raise AssertionError("weights were read")

    for name in ("load_module", "hash_files", "hash_module"):
        monkeypatch.setattr(build, name, forbidden)
    runner("plan", "--estimate", "model=tiny-llama", f"data={rows_file()}").assert_ok()


def test_a_run_that_cant_be_known_beforehand_says_so(runner: Runner, rows_file: Callable[..., Path]) -> None:
    words = ("model.quantization=nf4", "adapter.kind=lora", f"data={rows_file()}")
    runner("plan", "--estimate", "model=tiny-llama", *words).assert_failed("can't estimate", code="ESTIMATE")


def _parameters() -> int:
    from llmfw.testing.models import tiny_model

    return sum(value.numel() for value in tiny_model("tiny-llama").parameters())
