"""Small tasks, and results that no process told."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # the programs aren't installed
from benchmarks import tasks
from benchmarks.harness import Measured, Side, Task


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two layers with random weights."""
    return tasks.made(tmp_path_factory.mktemp("model") / "tiny", tasks.TINY)


@pytest.fixture
def outline(tmp_path: Path) -> Path:
    """The same model's config without weights, for what is worked out of it alone."""
    folder = tmp_path / "outline"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(tasks.TINY))
    return folder


@pytest.fixture
def pairs(outline: Path) -> Task:
    """Two steps of two ragged pairs behind one of warm-up."""
    samples = tasks.made_pairs([(9, 5, 8), (4, 7, 3), (6, 6, 2), (12, 3, 9)], 512)
    batches = tasks.in_steps(samples, 2)
    return Task(name="pairs", kind="dpo", model=outline, batches=batches, micro_batch=2, threads=1)


@pytest.fixture
def texts(outline: Path) -> Task:
    """Two steps of two ragged texts behind one of warm-up."""
    batches = tasks.in_steps(tasks.made_texts([9, 14, 7, 20], 512), 2)
    return Task(name="texts", kind="sft", model=outline, batches=batches, micro_batch=2, threads=1)


@pytest.fixture
def told() -> Callable[..., Measured]:
    """(task, name, seconds a step of each repetition) -> as if a side had told that."""

    def make(task: Task, name: str, *seconds: float, **changes: Any) -> Measured:
        run: dict[str, Any] = {
            "losses": [0.7, 0.6, 0.5], "grad_norm": 2.0, "peak_gib": 1.5, "loaded_gib": 1.0,
            "reference_seconds": 0.25,
            "steps": [{"positions": 20, "pairs": 60, "logits": 10, "layouts": ["packed"]}] * 3, **changes,
        }  # fmt: skip
        runs = [run | {"seconds": [value] * len(task.timed)} for value in seconds]
        return Measured(Side(name=name, program="ours"), task, runs)

    return make
