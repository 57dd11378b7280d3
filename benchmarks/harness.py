"""Sides that take the same steps, measured in turn, A B C A B C, each time by a fresh process."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import flops, record

OFFLINE = {
    "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Side:
    """A program that takes the steps: one of ``sides/`` in our environment, one of ``peers/`` in a peer's."""

    name: str
    program: str
    """``ours`` or ``raw``; of a peer its file's name."""
    environment: str | None = None
    """The peer's, by its name; None: ours."""
    plugins: tuple[str, ...] = ()
    settings: Sequence[str] | Mapping[str, Any] = ()
    """What the side runs with beside the job: ``KEY=VALUE`` for ours, the trainer's arguments for a peer."""

    def command(self, job: Path) -> list[str]:
        """The process that does a job."""
        if self.environment is None:
            return [sys.executable, "-m", f"benchmarks.sides.{self.program}", str(job)]
        program = record.ROOT / "benchmarks" / "peers" / f"{self.program}.py"
        return [str(record.peer_python(self.environment)), str(program), str(job)]


@dataclass(frozen=True, kw_only=True)
class Task:
    """Steps that all sides take: weights and batches."""

    name: str
    kind: str
    """``dpo`` or ``sft``."""
    model: Path
    batches: Sequence[Sequence[Mapping[str, Any]]]
    """Samples of each step, those of the warm-up first; as ``flops.needed`` reads them."""
    micro_batch: int
    accumulate: int = 1
    warmup: int = 1
    threads: int
    lr: float = 1e-6
    device: str = "cpu"
    dtype: str = "float32"

    @property
    def timed(self) -> Sequence[Sequence[Mapping[str, Any]]]:
        """The steps that count."""
        return self.batches[self.warmup :]

    @property
    def tokens(self) -> int:
        """Real tokens of the steps that count, the same number for every side."""
        return sum(map(flops.real_tokens, self.timed))


@dataclass
class Measured:
    """What the repetitions of a side told."""

    side: Side
    task: Task
    runs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def rates(self) -> list[float]:
        """Real tokens a second of each repetition."""
        return [self.task.tokens / sum(run["seconds"]) for run in self.runs]

    @property
    def step_seconds(self) -> list[float]:
        """Mean seconds of a step of each repetition."""
        return [statistics.fmean(run["seconds"]) for run in self.runs]

    def all(self, name: str) -> list[float]:
        """What each repetition told under a name."""
        return [float(run[name]) for run in self.runs]

    def median(self, name: str) -> float:
        """The median of ``all``."""
        return statistics.median(self.all(name))

    @property
    def memory(self) -> str:
        """Which memory counts: a GPU's where there's one."""
        return "gpu_gib" if self.task.device == "cuda" else "peak_gib"


def run(side: Side, task: Task, folder: Path, number: int = 0) -> dict[str, Any]:
    """One repetition of a side: what its process told.

    Raises:
        RuntimeError: the process ended without a result; the message has the end of what it printed.
    """
    own = folder / f"{side.name}-{number}".replace(" ", "_").replace(",", "")
    own.mkdir(parents=True)
    batches, out, job = folder / "batches.json", own / "told.json", own / "job.json"
    if not batches.exists():
        batches.write_text(json.dumps(task.batches))
    told = {
        "launched": time.time(), "kind": task.kind, "model": str(task.model), "batches": str(batches),
        "folder": str(own), "out": str(out), "warmup": task.warmup, "steps": len(task.timed),
        "threads": task.threads, "micro_batch": task.micro_batch, "accumulate": task.accumulate,
        "lr": task.lr, "device": task.device, "dtype": task.dtype, "plugins": list(side.plugins),
        "settings": dict(side.settings) if isinstance(side.settings, Mapping) else list(side.settings),
    }  # fmt: skip
    job.write_text(json.dumps(told))
    done = subprocess.run(
        side.command(job), cwd=record.ROOT, env=surroundings(task.threads), text=True, capture_output=True
    )
    if done.returncode or not out.exists():
        said = (done.stdout[-2000:] + done.stderr[-4000:]).strip()
        raise RuntimeError(f"{side.name} gave no result (exit {done.returncode}):\n{said}")
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def surroundings(threads: int) -> dict[str, str]:
    """The environment of a process: no hub, no paths of ours, as many threads as stated."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "LLMFW_CACHE")}
    return {**kept, **OFFLINE, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def roofline(threads: int, device: str = "cpu", dtype: str = "float32", size: int = 2048) -> float:
    """Operations a second of a large matrix product, measured by a process of its own."""
    command = [sys.executable, "-m", "benchmarks.roofline", device, dtype, str(size)]
    told = subprocess.check_output(command, cwd=record.ROOT, env=surroundings(threads), text=True)
    return float(told)


def interleave(
    task: Task, sides: Sequence[Side], repetitions: int, *, gemm_size: int = 2048
) -> tuple[dict[str, Measured], list[float]]:
    """Each side's repetitions by its name, and the machine's own rate before each round and at the end."""
    found = {side.name: Measured(side, task) for side in sides}
    assert len(found) == len(sides), "sides of one task have different names"
    rates: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(repetitions):
            rates.append(roofline(task.threads, task.device, task.dtype, gemm_size))
            for side in sides:
                told = run(side, task, Path(folder), number)
                found[side.name].runs.append(told)
                seconds = sum(told["seconds"]) / len(told["seconds"])
                print(
                    f"{task.name}: {side.name}, {number + 1} of {repetitions}: {seconds:.3f} s a step, "
                    f"{task.tokens / sum(told['seconds']):.1f} tokens/s, {told['peak_gib']:.2f} GiB",
                    flush=True,
                )
        rates.append(roofline(task.threads, task.device, task.dtype, gemm_size))
    return found, rates


def stated(sides: Iterable[Side]) -> dict[str, Any]:
    """What each side ran with, by its name."""
    return {
        side.name: dict(side.settings) if isinstance(side.settings, Mapping) else list(side.settings)
        for side in sides
    }


def relative(one: float, other: float) -> float:
    """The difference as a share of the larger; 0 for two zeros."""
    largest = max(abs(one), abs(other))
    return abs(one - other) / largest if largest else 0.0


def spread(values: Sequence[float]) -> list[float]:
    """Smallest and largest."""
    return [min(values), max(values)]


def speed_row(
    case: str, ours: Measured, peer: Measured, *, goal: record.Goal | None = None, **further: Any
) -> dict[str, Any]:
    """Tokens a second, higher is better; the ratio is that of the medians."""
    return record.row(
        case, ours=statistics.median(ours.rates), peer=statistics.median(peer.rates),
        peer_name=peer.side.name, unit="tokens/s", repetitions=len(ours.runs), goal=goal,
        ours_spread=spread(ours.rates),
        peer_spread=spread(peer.rates), ours_name=ours.side.name,
        ours_step_seconds=statistics.median(ours.step_seconds),
        peer_step_seconds=statistics.median(peer.step_seconds), **further,
    )  # fmt: skip


def memory_row(
    case: str, ours: Measured, peer: Measured, *, goal: record.Goal | None = None, name: str | None = None
) -> dict[str, Any]:
    """Peak memory in GiB, lower is better: of the process, or of the GPU's tensors."""
    kind = name or ours.memory
    return record.row(
        case, ours=ours.median(kind), peer=peer.median(kind), peer_name=peer.side.name, unit="GiB",
        repetitions=len(ours.runs), goal=goal, ours_spread=spread(ours.all(kind)),
        peer_spread=spread(peer.all(kind)), ours_name=ours.side.name,
    )  # fmt: skip


def difference_rows(
    case: str, ours: Measured, peer: Measured, *, loss: float, gradient: float
) -> list[dict[str, Any]]:
    """Largest relative difference of a step's loss, that of the first gradient's norm, and their bounds."""
    (mine, *_), (theirs, *_) = ours.runs, peer.runs
    worst = max(map(relative, mine["losses"], theirs["losses"]))
    of_norm = relative(mine["grad_norm"], theirs["grad_norm"])
    common: dict[str, Any] = {
        "peer_name": peer.side.name, "repetitions": len(ours.runs), "ours_name": ours.side.name,
    }  # fmt: skip
    return [
        record.row(
            f"{case}: loss, largest relative difference of a step", ours=mine["losses"][-1],
            peer=theirs["losses"][-1], unit="nats", goal=("at most", loss), judged=worst, **common,
        ),
        record.row(
            f"{case}: gradient norm of the first step, relative difference", ours=mine["grad_norm"],
            peer=theirs["grad_norm"], unit="norm", goal=("at most", gradient), judged=of_norm, **common,
        ),
    ]  # fmt: skip


def useful(task: Task, *, reference: bool) -> float:
    """Operations that the timed steps need at least, by formula."""
    shape = flops.shape_of(task.model)
    parts = (
        flops.training(shape, flops.needed(step), reference=reference, logits_again=False)
        for step in task.timed
    )
    return sum(parts)


def spent(measured: Measured, *, reference: bool, logits_again: bool = True) -> float:
    """Operations of our side's timed steps, as its batches were laid out."""
    task = measured.task
    shape = flops.shape_of(task.model)
    found = 0.0
    for step in measured.runs[0]["steps"][task.warmup :]:
        work = flops.Work(step["positions"], step["pairs"], step["logits"])
        found += flops.training(shape, work, reference=reference, logits_again=logits_again)
    return found


def spent_padded(task: Task, *, reference: bool, all_logits: bool, logits_again: bool) -> float:
    """Operations of a side whose batches are padded, by formula."""
    shape = flops.shape_of(task.model)
    return sum(
        flops.training(
            shape,
            flops.padded(step, task.micro_batch, all_logits=all_logits),
            reference=reference,
            logits_again=logits_again,
        )
        for step in task.timed
    )


def roofline_row(
    case: str, measured: Measured, rates: Sequence[float], operations: float, peer: Measured | None = None
) -> dict[str, Any]:
    """Useful operations a second over the machine's own rate, ours and the peer's: shares of 1."""
    rate = statistics.median(rates)

    def share(one: Measured) -> float:
        return operations / statistics.median(sum(run["seconds"]) for run in one.runs) / rate

    return record.row(
        f"{case}: useful FLOP/s over the GEMM rate", ours=share(measured), ours_name=measured.side.name,
        peer=None if peer is None else share(peer), peer_name=None if peer is None else peer.side.name,
        unit="share of the GEMM rate", repetitions=len(measured.runs), gemm_gflops=rate / 1e9,
        gemm_spread=[value / 1e9 for value in spread(rates)], useful_gflop=operations / 1e9,
        kind="roofline",
    )  # fmt: skip
