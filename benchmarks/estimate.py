"""Is a run's cost what ``llmfw plan --estimate`` says? Seven configurations, predicted, run, compared.

    python -m benchmarks.estimate                 # all, writes results/estimate.json
    python -m benchmarks.estimate lora packed     # some, printed alone

One number of the prediction (``heap.EDGES``) was calibrated on the peaks of three cases: the cached
reference, LoRA and recomputed layers; the other four stand for runs that it hasn't seen.

Each case is predicted in a process of its own, then trained for a few steps in another. Measured is what
the run itself tells: its peak of resident memory (costs.json), and the median of ``time/step_seconds``
without the first step.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.record import write

ALIKE = (
    "data.max_length=256", "trainer.max_steps=5", "trainer.validation_limit=2", "trainer.progress=false",
    "checkpoint.every=0", "tracking.mlflow=false", "trainer.accelerator=cpu",
)  # fmt: skip
PAIRS = ("--plugin", "dpo", "dpo.answers=0", "trainer.micro_batch=2")
CASES: Mapping[str, tuple[str, ...]] = {
    "full, DPO, live reference": (*PAIRS, "adapter.kind=none", "trainer.reference=copy"),
    "full, DPO, cached reference": (*PAIRS, "adapter.kind=none", "trainer.reference=cache"),
    "lora, DPO, r 16": (*PAIRS, "adapter.kind=lora", "trainer.reference=adapter_off"),
    "packed SFT": ("data=champ-problems", "trainer.layout=packed", "trainer.micro_batch=4"),
    "padded SFT, accumulated": (
        "data=champ-problems", "trainer.layout=padded", "trainer.micro_batch=2", "trainer.accumulate=2",
    ),
    "recomputed layers, SFT": (
        "data=champ-problems", "trainer.recompute=layers", "trainer.micro_batch=4",
    ),
    "scratch, tiny-llama": ("model=tiny-llama", "data=champ-problems", "trainer.micro_batch=16"),
}  # fmt: skip
MEMORY, SECONDS = 0.15, 0.30


def main(wanted: Sequence[str]) -> int:
    """Predict and measure the cases whose names hold one of the words; all are kept, some are printed."""
    rows: list[dict[str, Any]] = []
    for name, words in CASES.items():
        if wanted and not any(word in name for word in wanted):
            continue
        with tempfile.TemporaryDirectory() as folder:
            rows += compare(name, predicted(words, Path(folder)), measured(words, Path(folder)))
        for row in rows[-2:]:
            print(json.dumps(row), flush=True)
    if not wanted:
        write("estimate", rows, versions={})
    return int(not all(row["met"] for row in rows))


def predicted(words: Sequence[str], folder: Path) -> dict[str, Any]:
    """The plan's estimate."""
    told = _llmfw("plan", "--estimate", "--json", *ALIKE, *words, folder=folder)
    found: dict[str, Any] = json.loads(told)["estimate"]
    return found


def measured(words: Sequence[str], folder: Path) -> tuple[float, float]:
    """(peak in bytes, median seconds of a step) of the run."""
    _llmfw("fit", *ALIKE, *words, f"run.dir={folder / 'run'}", folder=folder)
    peak = json.loads((folder / "run" / "costs.json").read_text())["host_gib"] * 2**30
    lines = [json.loads(line) for line in (folder / "run" / "journal.jsonl").read_text().splitlines()]
    values = [line["values"] for line in lines if line.get("t") == "metrics"]
    steps = [value["time/step_seconds"] for value in values if "time/step_seconds" in value]
    return peak, statistics.median(steps[1:])


def compare(name: str, told: Mapping[str, Any], found: tuple[float, float]) -> list[dict[str, Any]]:
    """Two rows of a case: ``ours`` is what was predicted, ``peer`` what was measured."""
    pairs = (
        ("peak memory", told["peak"]["total"] / 2**30, found[0] / 2**30, "GiB", MEMORY),
        ("step", told["seconds"]["step"], found[1], "s", SECONDS),
    )
    return [
        {
            "case": f"{name}: {what}", "ours": ours, "peer": peer, "peer_name": "measured", "unit": unit,
            "ratio": ours / peer, "repetitions": 1, "goal": f"within {goal:.0%}",
            "met": abs(ours / peer - 1) <= goal,
        }
        for what, ours, peer, unit, goal in pairs
    ]  # fmt: skip


def _llmfw(*words: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "llmfw", *words], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"llmfw {' '.join(words)}\n{done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
