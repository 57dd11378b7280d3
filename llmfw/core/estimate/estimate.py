"""What a run will cost, before a weight is read: its peak of memory, and seconds a step."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from llmfw.core.assemble import Assembled
from llmfw.core.batch import Batch
from llmfw.core.determinism import pinned, thread_count
from llmfw.core.estimate import batches
from llmfw.core.estimate.blank import check_estimable
from llmfw.core.estimate.machine import Machine, measured, still
from llmfw.core.estimate.memory import UNCERTAINTY, Peak, base_memory, peak_of
from llmfw.core.estimate.replay import time_calls, total_flops
from llmfw.core.estimate.room import Room, room
from llmfw.core.estimate.trace import Tracer, Work

TIME_UNCERTAINTY = 0.30
"""By how much measured seconds a step may differ from the predicted ones, as a share of the latter."""
BUDGET = 8.0
"""Seconds in which the operators of a step are carried out one by one."""


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """Predicted times."""

    step: float
    """Of an optimizer step of middle size."""
    mean: float
    """Of an optimizer step, averaged over the run."""
    total: float
    """Of all steps: without validation, generation, checkpoints and evaluations."""
    measured: float
    """Share of a step's time whose operators were carried out; the rest is told by FLOPs and bytes."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What ``llmfw plan --estimate`` tells. Bytes, seconds, FLOPs; token counts are means over the steps."""

    micro_batch: int
    accumulate: int
    processes: int
    device: str
    steps: int
    samples: float
    tokens: float
    """Of an optimizer step over all processes, without padding."""
    positions: float
    """The same with padding, as the layout lays them out."""
    largest: tuple[int, int]
    """Rows and positions of the largest micro-batch."""
    trained: int
    """Parameters that are trained."""
    peak: Peak
    room: Room
    seconds: Seconds
    flops: float
    """Of an optimizer step of middle size, in one process."""
    machine: Machine
    notes: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether the largest peak that is expected is below what there is."""
        return self.peak.high <= self.room.bytes

    @property
    def utilisation(self) -> float:
        """FLOPs of a step over its time, as a share of the machine's rate of matrix products."""
        return self.flops / max(self.seconds.step, 1e-9) / self.machine.gemm

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **asdict(replace(self)),
            "fits": self.fits,
            "utilisation": self.utilisation,
            "uncertainty": {"memory": UNCERTAINTY, "seconds": TIME_UNCERTAINTY},
        }


class Estimator:
    """Estimates of one run with one or more micro-batches. Nothing of it reads a weight.

    Raises:
        UsageError, DataError: ESTIMATE, where a run can't be known beforehand.
    """

    def __init__(self, assembled: Assembled) -> None:
        check_estimable(assembled)
        self.assembled, self.root = assembled, assembled.run.config
        self.device = device_of(self.root.trainer)
        self.source = batches.source_of(assembled)
        self.base = base_memory(tracking=self.root.tracking.mlflow)
        self.local = self.root.trainer.devices
        self.world = self.local * self.root.trainer.nodes
        with still(thread_count(self.root.trainer)):
            self.tracer = Tracer(assembled, self.device)

    def peak(self, micro_batch: int, accumulate: int) -> Peak:
        """The largest peak over the run's micro-batches, a step's or a held-out one's."""
        work = batches.work_of(self.source, micro_batch, accumulate)
        return self._peak(work)

    def _peak(self, work: batches.Work) -> Peak:
        with still(thread_count(self.root.trainer)):
            memory, _ = self.tracer.trace(work.largest, accumulate=work.accumulate)
        return peak_of([memory], self.base, processes=self.world, device=self.device)

    def room(self) -> Room:
        """Memory that each process may have."""
        return room(self.local if self.device == "cpu" else 1, self.device)

    def estimate(self, micro_batch: int, accumulate: int) -> Estimate:
        """Everything, with these counts."""
        work = batches.work_of(self.source, micro_batch, accumulate)
        with still(thread_count(self.root.trainer)):
            most, large = self.tracer.trace(work.largest, accumulate=work.accumulate)
            usual, middle = self.tracer.trace(work.typical, accumulate=work.accumulate)
        with pinned(self.root.trainer) as threads, still(threads):
            machine = measured(threads, self.device)
            seconds = self._seconds(work, large, middle, machine)
        steps = work.divided
        real = statistics.fmean(sum(one.real for one in step) for step in steps)
        positions = statistics.fmean(sum(one.positions for one in step) for step in steps)
        return Estimate(
            micro_batch=micro_batch,
            accumulate=accumulate,
            processes=self.world,
            device=self.device,
            steps=work.steps,
            samples=statistics.fmean(sum(len(one.indices) for one in step) for step in steps) * self.world,
            tokens=real * self.world,
            positions=positions * self.world,
            largest=(int(work.largest.input_ids.shape[0]), int(work.largest.input_ids.shape[1])),
            trained=sum(parameter.numel() for parameter in self.tracer.blank.trained),
            peak=peak_of([most, usual], self.base, processes=self.world, device=self.device),
            room=self.room(),
            seconds=seconds,
            flops=float(
                total_flops(middle.micro) * statistics.median(len(step) for step in steps)
                + total_flops(middle.update)
            ),
            machine=machine,
            notes=self._notes(work),
        )

    def _seconds(self, work: batches.Work, large: Work, middle: Work, machine: Machine) -> Seconds:
        """Seconds of each step: a micro-batch's are a straight line through the two that were followed."""
        times = time_calls(
            [*middle.micro, *middle.update, *large.micro], machine, budget=BUDGET, device=self.device
        )

        def of(calls: Mapping[Any, int], *, known: bool = False) -> float:
            return sum(
                n * times[call].seconds for call, n in calls.items() if times[call].measured or not known
            )

        update = of(middle.update)
        points = [
            (size_of(batch), of(one.micro) + one.handled * machine.call)
            for batch, one in ((work.typical, middle), (work.largest, large))
        ]
        (near, first), (far, last) = points
        slope = (last - first) / (far - near) if far > near else 0.0
        if slope <= 0:  # two of one size, or a measurement that others disturbed
            slope = first / near

        def step(sizes: tuple[batches.Sizes, ...]) -> float:
            return update + sum(max(first + slope * (one.positions - near), 0.1 * first) for one in sizes)

        each = [step(sizes) for sizes in work.divided]
        whole = of(middle.micro) + update
        known = of(middle.micro, known=True) + of(middle.update, known=True)
        mean = statistics.fmean(each)
        return Seconds(
            step=statistics.median(each),
            mean=mean,
            total=mean * work.steps,
            measured=known / max(whole, 1e-9),
        )

    def _notes(self, work: batches.Work) -> tuple[str, ...]:
        notes: list[str] = []
        if self.source.streamed:
            notes.append("streamed data: its first rows stand for all, the longest for the largest")
        if work.steps > batches.MOST_STEPS:
            notes.append(f"the first {batches.MOST_STEPS} steps stand for all {work.steps}")
        if self.world > 1:
            notes.append("time that processes spend talking to one another isn't in it")
        if self.root.trainer.compile != "none":
            notes.append("what trainer.compile saves isn't in it")
        loss = self.assembled.plan.one("llmfw_loss")
        if loss.needs_reference and self.root.trainer.reference == "cache":
            notes.append("the reference's log-probs are taken to be in their cache: filling it isn't in it")
        return tuple(notes)


def size_of(batch: Batch) -> int:
    """Positions of a batch."""
    return int(batch.input_ids.numel())


def device_of(trainer: Any) -> str:
    """Where training will run: ``cuda`` or ``cpu``."""
    import torch

    return "cuda" if trainer.accelerator in ("auto", "gpu") and torch.cuda.is_available() else "cpu"


def estimate(assembled: Assembled) -> Estimate:
    """What the run will cost, as it's set."""
    trainer = assembled.run.config.trainer
    return Estimator(assembled).estimate(trainer.micro_batch, trainer.accumulate)
