"""A profile as figures: medians over steps, shares, rates; what the table and the json file hold."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from llmfw.core.assemble import Assembled
from llmfw.core.module import TrainModule
from llmfw.core.profiling.counting import Counting
from llmfw.core.profiling.phases import BACKWARD, FORWARD, RECOMPUTED, REFERENCE, Phase
from llmfw.core.profiling.rate import gemm_rate, product_dtype
from llmfw.core.profiling.steps import Measured, Step
from llmfw.core.profiling.trace import name_of

MOST_OPERATORS = 12
ORDER = (
    "data wait", "to the device", FORWARD, REFERENCE, BACKWARD, RECOMPUTED, "clip and checks", "optimizer",
    "callbacks", "logging", "measuring", "rest",
)  # fmt: skip
PARTS = ("embedding", "attention", "mixer", "mlp", "norms", "compiled layers", "layers, the rest", "head")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A phase. ``ms``: median over the timed steps; ``share``: of all their time; ``gflop``: of its matrix
    products in a step; ``rate``: of the machine's measured one, None where there are no products.
    """

    name: str
    group: str
    part: str
    ms: float
    share: float
    calls: float
    gflop: float
    rate: float | None


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Where the time of a run's steps went. Times in ms and seconds, rates in operations a second.

    ``step_ms`` and ``tokens_per_second`` are of steps that nothing watched; ``overhead`` is what watching the
    phases added to a step's time per token (0.02: 2%).
    """

    name: str
    device: str
    threads: int
    precision: str
    steps: int
    step_ms: float
    timed_ms: float
    overhead: float
    tokens_per_second: float
    tokens: float
    positions: float
    phases: Sequence[Row]
    gflop: float
    gemm_rate: float
    gemm_share: float
    host_gib: float | None
    gpu_gib: float | None
    waits: int
    waits_at: Sequence[Mapping[str, Any]]
    synchronizations: Mapping[str, int]
    operators: Sequence[Mapping[str, Any]]
    losses: Sequence[float]
    trace: str


def profile_of(
    assembled: Assembled, measured: Measured, *, module: TrainModule, threads: int, out: Path
) -> Profile:
    """The profile, written down as ``out/profile.json`` with its trace beside it."""
    plain, timed = _way(measured, "plain"), _way(measured, "timed")
    (traced,) = _way(measured, "traced")
    precision, weights = str(assembled.run.config.trainer.precision), next(module.parameters())
    rate = gemm_rate(measured.device, product_dtype(precision, weights.dtype))
    assert measured.counting is not None and measured.tracing is not None and traced.timed is not None
    trace = out / "trace.json"
    measured.tracing.write(trace, traced.timed)
    tokens = median(step.tokens for step in plain)
    per_token = [sum(s.seconds for s in group) / sum(s.tokens for s in group) for group in (plain, timed)]
    flops = sum(measured.counting.flops.values()) / _way(measured, "counted")[0].tokens
    profile = Profile(
        name=assembled.run.name,
        device=_device(measured.device),
        threads=threads,
        precision=precision,
        steps=len(plain),
        step_ms=median(step.seconds for step in plain) * 1e3,
        timed_ms=median(step.seconds for step in timed) * 1e3,
        overhead=per_token[1] / per_token[0] - 1,
        tokens_per_second=1 / per_token[0],
        tokens=tokens,
        positions=median(step.positions for step in plain),
        phases=rows(timed, measured.counting, _way(measured, "counted")[0], rate),
        gflop=flops * tokens / 1e9,
        gemm_rate=rate,
        gemm_share=flops / per_token[0] / rate,
        host_gib=_gib([step.host for step in plain]),
        gpu_gib=_gib([step.gpu for step in plain]),
        waits=measured.counting.waits,
        waits_at=places(measured.counting),
        synchronizations=measured.synchronizations,
        operators=measured.tracing.operators(MOST_OPERATORS),
        losses=[step.loss for step in measured.steps],
        trace=str(trace),
    )
    text = json.dumps(asdict(profile), indent=1, ensure_ascii=False)
    (out / "profile.json").write_text(text + "\n", encoding="utf-8")
    return profile


def rows(timed: Sequence[Step], counting: Counting, counted: Step, rate: float) -> list[Row]:
    """A row a phase, in the order of a step."""
    told = [step.timed for step in timed if step.timed is not None]
    found = {phase for one in told for phase in one.phases}
    whole = sum(one.seconds for one in told)
    scale = sum(step.tokens for step in timed) / counted.tokens  # products of all timed steps
    result = []
    for phase in sorted(found, key=_place):
        seconds = [one.phases.get(phase, 0.0) for one in told]
        flops = counting.flops.get(phase, 0) * scale
        group, part = phase
        result.append(
            Row(
                name=name_of(phase),
                group=group,
                part=part,
                ms=median(seconds) * 1e3,
                share=sum(seconds) / whole,
                calls=median(one.calls.get(phase, 0) for one in told),
                gflop=flops / len(told) / 1e9,
                rate=flops / sum(seconds) / rate if flops and sum(seconds) else None,
            )
        )
    return result


def places(counting: Counting) -> list[dict[str, Any]]:
    """Where the host waits for the device, most often first: what, at (FILE:LINE), phase, times."""
    found = sorted(counting.reads.items(), key=lambda pair: (-pair[1], pair[0]))
    return [
        {"what": what, "at": at, "phase": name_of(phase), "times": times}
        for (what, at, phase), times in found
    ]


def _way(measured: Measured, way: str) -> list[Step]:
    return [step for step in measured.steps if step.way == way]


def _place(phase: Phase) -> tuple[int, int, str]:
    group, part = phase
    order = ORDER.index(group) if group in ORDER else len(ORDER)
    return order, PARTS.index(part) if part in PARTS else len(PARTS), part


def _gib(peaks: Sequence[int | None]) -> float | None:
    known = [peak for peak in peaks if peak is not None]
    return max(known) / 2**30 if known else None


def _device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
