"""What each part of a plugin costs, in real runs of a plugin whose parts take known times."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import llmfw
from llmfw.core.costs import Part, read_cost
from llmfw.core.tracking import read_journal
from tests.core.costs.toys import SLOW
from tests.toys import installed, write_toy

QUIET = ("model=tiny-llama", "trainer.progress=false", "tracking.mlflow=false", "adapter.kind=none",
         "trainer.micro_batch=2", "data=rows.jsonl")  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder with rows of one length, and the slow plugin."""
    monkeypatch.chdir(tmp_path)
    rows = [{"id": f"r{i}", "prompt": f"say {i}", "completion": f"it is {i}"} for i in range(10)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_toy(tmp_path / "site", "slow", SLOW)
    with installed(tmp_path / "site"):
        yield tmp_path


def by_name(result: llmfw.FitResult) -> dict[str, Part]:
    return {part.name: part for part in result.cost.parts}


def test_every_part_has_its_own_time_and_its_own_bytes():
    """Two micro-batches a step. Loss: 2 x (20 ms forward + 15 ms backward), and exp keeps N float32 numbers of
    a micro-batch. Surgery: Gate sleeps 10 ms in each of 2 forward passes of the policy (those of the reference
    are the reference's) and adds 3 + 5 float32 numbers. Callback: 3 ms in each of its two hooks of a step.
    Metric: 2 x 4 ms update, 4 ms compute, 7 float64 numbers. Reference: Gate's 10 ms in 2 passes.
    """
    result = llmfw.fit(*QUIET, "trainer.max_steps=3", "trainer.accumulate=2", "trainer.reference=copy",
                       plugins=["slow"])  # fmt: skip
    found = by_name(result)
    assert found["loss"].ms >= 70 and found["surgery/gate"].ms >= 20 and found["reference"].ms >= 20
    assert found["callback/Slow"].ms >= 6 and found["metric/toy/counts"].ms >= 12
    # the model's own work is nobody's, and nobody's sleep is counted twice
    step = found["loss"].ms / found["loss"].share
    assert sum(part.ms for part in found.values() if part.ms) < step + found["callback/Slow"].ms
    assert found["surgery/gate"].gib * 2**30 == (3 + 5) * 4
    assert found["metric/toy/counts"].gib * 2**30 == 7 * 8
    # "it is 3" is seven bytes and the end of the turn; two rows a micro-batch
    trained = {event.fields["step"] for event in read_journal(result.dir / "journal.jsonl").of("costs")}
    assert trained == {2, 3} and found["loss"].samples == 2
    assert found["loss"].gib * 2**30 == 4 * 2 * _trained_tokens(result)


def _trained_tokens(result: llmfw.FitResult) -> int:
    """Of one row, as the report on the data has them; all rows are alike."""
    (event,) = read_journal(result.dir / "journal.jsonl").of("data")
    report = event.fields["report"]
    tokens = {split["trained"] / split["samples"] for split in report["splits"].values()}
    assert len(tokens) == 1
    return int(tokens.pop())
