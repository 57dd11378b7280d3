"""A step of supervised fine-tuning against a plain torch loop, TRL's SFTTrainer and LitGPT.

    python -m benchmarks.sft_step                          # all cases, results/sft_step.CASE.json
    python -m benchmarks.sft_step --cases overhead --repetitions 9
    python -m benchmarks.sft_step --tiny --out FOLDER      # whether everything runs, in minutes

All sides train all weights of the same model on the same token ids in float32 with AdamW (fused) and a
constant learning rate; gradients are clipped to 1, but for LitGPT, whose loop doesn't.

Cases, on SmolLM2-135M and CHAMP's problems with their solutions, uncut; the solution is trained:

overhead  4 texts a step, padded on both sides; the raw loop (``sides/raw.py``: transformers' model, torch's
          loss and AdamW) makes all logits, we those of trained tokens. The pairs of repetitions give an
          interval of the difference: 95%, Student's t of the logarithms.
packed    8 texts a step in the data's order, not grouped by length: where padding hurts. Our packed layout
          against our padded one, the raw loop, TRL as it comes, TRL's ``padding_free`` (without
          flash-attention transformers makes its mask from the positions), and LitGPT (the same weights,
          converted by its own function; its head isn't tied to the embedding)
grouped   the same texts in steps of like length, as our loader groups them by default: packed against padded
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import harness, record, tasks
from benchmarks.harness import Measured, Side, Task

QUIET = ("adapter.kind=none", "checkpoint.every=0", "tracking.mlflow=false", "trainer.progress=false")
"""What isn't a step's: checkpoints, tracking; and all weights are trained."""
PADDED = Side(name="llmfw, padded", program="ours", settings=(*QUIET, "trainer.layout=padded"))
PACKED = Side(name="llmfw, packed", program="ours", settings=(*QUIET, "trainer.layout=packed"))
RAW = Side(name="raw torch loop", program="raw")
TRL = Side(name="trl", program="trl_step", environment="trl", settings={})
TRL_FREE = Side(
    name="trl, padding-free", program="trl_step", environment="trl", settings={"padding_free": True}
)
LITGPT = Side(name="litgpt", program="litgpt_step", environment="litgpt")
CASES: dict[str, Sequence[Side]] = {
    "overhead": (PADDED, RAW),
    "packed": (PACKED, PADDED, RAW, TRL, TRL_FREE, LITGPT),
    "grouped": (PACKED, PADDED),
}
LOSS_BOUND, GRADIENT_BOUND = 1e-4, 1e-3
T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Student's t at 97.5% for 1 to 10 degrees of freedom; more than ten take ten's."""


def task_of(name: str, folder: Path, *, threads: int, tiny: bool = False) -> Task:
    """Weights and batches of a case; ``tiny``: a small model and short texts."""
    size = 4 if name == "overhead" else 8
    if tiny:
        model = tasks.made(folder / "tiny", tasks.TINY)
        samples = tasks.made_texts([9, 14, 7, 20, 31, 5, 12, 10] * 2, tasks.TINY["vocab_size"])
    else:
        model = tasks.smollm2()
        samples = tasks.champ_texts(16 if name == "overhead" else 32)
    if name == "grouped":
        samples = sorted(samples, key=lambda sample: -len(sample["ids"]))
    return Task(
        name=name, kind="sft", model=model, batches=tasks.in_steps(samples, size), micro_batch=size,
        threads=threads,
    )  # fmt: skip


def interval(ours: Measured, peer: Measured) -> list[float]:
    """95% interval of seconds over the peer's seconds, minus 1, from the pairs of repetitions."""
    logs = [
        math.log(mine / theirs) for mine, theirs in zip(ours.step_seconds, peer.step_seconds, strict=True)
    ]
    mean, count = statistics.fmean(logs), len(logs)
    if count < 2:
        return [-math.inf, math.inf]
    half = T_95[min(count - 1, 10) - 1] * statistics.stdev(logs) / math.sqrt(count)
    return [math.expm1(mean - half), math.expm1(mean + half)]


def overhead_row(ours: Measured, raw: Measured) -> dict[str, Any]:
    """What our step takes over the raw loop's; met: at most 1% more, or an interval that holds 0."""
    low, high = interval(ours, raw)
    mine, theirs = statistics.median(ours.step_seconds), statistics.median(raw.step_seconds)
    over = mine / theirs - 1
    inside = low <= 0.0 <= high
    found = record.row(
        "overhead: seconds a step, equal batches and layout", ours=mine, peer=theirs, peer_name=raw.side.name,
        ours_name=ours.side.name, unit="s", repetitions=len(ours.runs), goal=("at most", 0.01), judged=over,
        interval=[value if math.isfinite(value) else None for value in (low, high)],
        ours_spread=harness.spread(ours.step_seconds), peer_spread=harness.spread(raw.step_seconds),
        inside_interval=inside,
    )  # fmt: skip
    return found | {"met": found["met"] or (inside and len(ours.runs) > 1)}


def rows_of(
    name: str, task: Task, found: Mapping[str, Measured], rates: Sequence[float]
) -> list[dict[str, Any]]:
    """A case's rows."""
    padded = found[PADDED.name]
    useful = harness.useful(task, reference=False)
    if name == "overhead":
        raw = found[RAW.name]
        return [
            overhead_row(padded, raw),
            harness.memory_row("overhead: peak memory", padded, raw),
            *harness.difference_rows("overhead", padded, raw, loss=LOSS_BOUND, gradient=GRADIENT_BOUND),
            harness.roofline_row("overhead", padded, rates, useful, raw),
        ]
    packed = found[PACKED.name]
    title = "packed, in the data's order" if name == "packed" else "packed, grouped by length"
    rows = [
        harness.speed_row(
            f"{title}: against our padded", packed, padded,
            goal=("at least", 1.8) if name == "packed" else None, flop_ratio=flop_ratio(packed, padded),
        ),
        harness.memory_row(f"{title}: peak memory against our padded", packed, padded),
        *harness.difference_rows(title, packed, padded, loss=LOSS_BOUND, gradient=GRADIENT_BOUND),
    ]  # fmt: skip
    for side in (RAW, TRL, TRL_FREE, LITGPT):
        if side.name in found:
            peer = found[side.name]
            rows.append(harness.speed_row(f"{title}: against {side.name}", packed, peer))
            rows.append(harness.memory_row(f"{title}: peak memory against {side.name}", packed, peer))
    for side in (RAW, TRL, TRL_FREE):
        if side.name in found:
            rows += harness.difference_rows(
                f"{title}, {side.name}", packed, found[side.name], loss=LOSS_BOUND, gradient=GRADIENT_BOUND
            )
    if LITGPT.name in found:
        rows.append(first_loss(f"{title}, litgpt", packed, found[LITGPT.name]))
    return [*rows, harness.roofline_row(title, packed, rates, useful, padded)]


def first_loss(case: str, ours: Measured, peer: Measured) -> dict[str, Any]:
    """The first step's loss alone: from then on the updates differ."""
    mine, theirs = ours.runs[0]["losses"][0], peer.runs[0]["losses"][0]
    return record.row(
        f"{case}: loss of the first step, relative difference", ours=mine, peer=theirs, unit="nats",
        peer_name=peer.side.name, ours_name=ours.side.name, repetitions=len(ours.runs),
        goal=("at most", LOSS_BOUND), judged=harness.relative(mine, theirs),
    )  # fmt: skip


def flop_ratio(packed: Measured, padded: Measured) -> float:
    """What our padded steps compute over what the packed ones do."""
    return harness.spent(padded, reference=False) / harness.spent(packed, reference=False)


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--tiny", action="store_true", help="small models: whether everything runs")
    parser.add_argument("--out", type=Path, default=record.RESULTS, help="folder of the result")
    return parser.parse_args(words)


def versions_of(sides: Sequence[Side]) -> dict[str, str]:
    """Versions in the environments of the peers among the sides."""
    asked = {"trl": ("trl", "torch", "transformers"), "litgpt": ("litgpt", "torch")}
    names = {side.environment for side in sides}
    return {
        package: version
        for name, packages in asked.items() if name in names
        for package, version in record.peer_versions(name, *packages).items()
    }  # fmt: skip


def main(words: Sequence[str] | None = None) -> None:
    """Measure case by case: write its result, print a line per row."""
    options = parse(words)
    with tempfile.TemporaryDirectory() as folder:
        for name in options.cases:
            sides = CASES[name]
            versions = versions_of(sides)
            task = task_of(name, Path(folder), threads=options.threads, tiny=options.tiny)
            size = 256 if options.tiny else 2048
            found, rates = harness.interleave(task, sides, options.repetitions, gemm_size=size)
            rows = rows_of(name, task, found, rates)
            settings = {
                "threads": options.threads, "tiny": options.tiny, "dtype": "float32", "lr": Task.lr,
                "warm-up": "1 step", "sides": harness.stated(sides),
            }  # fmt: skip
            record.write(
                "sft_step", rows, part=name, versions=versions, folder=options.out, settings=settings
            )
            record.tell(rows)


if __name__ == "__main__":
    main()
