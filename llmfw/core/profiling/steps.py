"""Which step of a profiled training is measured how, and the switch from one to the next."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from llmfw.core.costs import peak_memory
from llmfw.core.costs.memory import Peak
from llmfw.core.costs.spent import swapped
from llmfw.core.profiling.counting import Counting, synchronizations
from llmfw.core.profiling.phases import Phases, Timed
from llmfw.core.profiling.regions import DATA, Watched
from llmfw.core.profiling.trace import Tracing

Way = Literal["warm-up", "plain", "timed", "counted", "traced"]


def ways(steps: int, warmup: int) -> list[Way]:
    """How each step is measured: after the warm-up plain and timed ones in turn, so that a machine that gets
    slower slows both; then one that is counted and one that is traced.
    """
    pairs: list[Way] = ["plain", "timed"]
    first: list[Way] = ["warm-up"]
    return [*(first * warmup), *(pairs * steps), "counted", "traced"]


@dataclass
class Step:
    """One step as it went. Seconds from the end of the step before to its own end."""

    way: Way
    seconds: float = 0.0
    loss: float = 0.0
    tokens: int = 0
    """Tokens of samples."""
    positions: int = 0
    """Positions that the model computed, padding included."""
    timed: Timed | None = None
    host: int | None = None
    """Peak of resident memory, bytes; of plain steps."""
    gpu: int | None = None


@dataclass
class Measured:
    """What the steps brought."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    steps: list[Step] = field(default_factory=list)
    counting: Counting | None = None
    synchronizations: dict[str, int] = field(default_factory=dict)
    """By place, as CUDA tells; empty on a CPU."""
    tracing: Tracing | None = None


class Switch:
    """Changes, at each step's end, to the way in which the next one is measured."""

    def __init__(self, module: Any, watched: Watched, plan: Sequence[Way]) -> None:
        self.measured = Measured()
        self._module, self._watched = module, watched
        self._plan = list(plan)
        self._open = ExitStack()
        self._begun = 0.0
        self._phases: Phases | None = None
        self._step: Step | None = None

    @contextmanager
    def over(self) -> Iterator[None]:
        """Measure the training that the block carries out."""
        module: Any = self._module
        started, ended = module.on_train_start, module.on_train_batch_end

        def on_train_start() -> None:
            started()
            self.measured.device = module.device
            self._next()

        def on_train_batch_end(outputs: Any, batch: Any, batch_idx: int) -> None:
            ended(outputs, batch, batch_idx)
            self._end(outputs, batch)
            self._next()

        with (
            swapped(module, "on_train_start", on_train_start),
            swapped(module, "on_train_batch_end", on_train_batch_end),
        ):
            try:
                yield
            finally:
                self._open.close()

    def _next(self) -> None:
        if not self._plan:
            return
        way, device = self._plan.pop(0), self.measured.device
        self._step = Step(way)
        if way == "plain":
            peak = self._open.enter_context(peak_memory())
            step = self._step
            self._open.callback(lambda: _note(step, peak))
        if way in ("timed", "counted", "traced"):
            self._phases = Phases(device, named=way == "traced")
            self._open.enter_context(self._watched.over(self._phases, self._module))
        if way == "counted":
            assert self._phases is not None
            phases = self._phases
            self.measured.counting = Counting(lambda: phases.now, silent=[DATA])
            told = self._open.enter_context(synchronizations())
            self._open.callback(lambda: self.measured.synchronizations.update(told))
            self._open.enter_context(self.measured.counting.over())
        if way == "traced":
            self.measured.tracing = Tracing(device)
            self._open.enter_context(self.measured.tracing.over())
        _settle(device)
        if self._phases is not None:
            self._phases.begin()
        self._begun = time.perf_counter()

    def _end(self, outputs: Any, batch: Any) -> None:
        step = self._step
        if step is None:
            return
        if self._phases is not None:
            step.timed = self._phases.end()
        else:
            _settle(self.measured.device)
        step.seconds = time.perf_counter() - self._begun
        self._open.close()
        step.loss, step.tokens = outputs["metrics"]["loss"], int(outputs["tokens"])
        step.positions = sum(part.input_ids.numel() for part in batch)
        self.measured.steps.append(step)
        self._phases = self._step = None


def _note(step: Step, peak: Peak) -> None:
    step.host, step.gpu = peak.host, peak.gpu


def _settle(device: torch.device) -> None:
    """Let a GPU finish, so that a step's time holds its own work and no other's."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
