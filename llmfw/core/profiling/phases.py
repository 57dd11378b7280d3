"""A step's time, told apart by phase: every moment belongs to exactly one, so the phases add up to the step.

A phase is (group, part): ("forward", "attention"), ("backward", "attention"), ("optimizer", ""). On a GPU the
moments are events in its queue, so a phase's time is that between the work before it and the work after it,
and nothing is waited for inside the step.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.profiler import record_function

Phase = tuple[str, str]
REST: Phase = ("rest", "")
"""What no phase claims: Lightning's loop, seeding, bookkeeping."""
BACKWARD, FORWARD, RECOMPUTED, REFERENCE = "backward", "forward", "recomputed forward", "reference"


@dataclass
class Timed:
    """One step: its seconds, those of each phase and how often each began; host times of the turns."""

    seconds: float = 0.0
    phases: dict[Phase, float] = field(default_factory=dict)
    calls: dict[Phase, int] = field(default_factory=dict)
    turns: list[tuple[int, Phase]] = field(default_factory=list)
    """(nanoseconds of ``time.perf_counter_ns``, the phase that began then); the last one ends the step."""


class Phases:
    """Notes which phase is under way. Phases are in each other; time counts for the innermost one.

    It changes no number: it reads clocks, and hangs hooks on autograd nodes that return nothing.

    Args:
        device: where the model computes.
        named: every phase of the main thread becomes a region of a running ``torch.profiler``.
    """

    def __init__(self, device: torch.device, *, named: bool = False) -> None:
        self._cuda = device.type == "cuda"
        self._named = named
        self._stack: list[Phase] = [REST]
        self._regions: list[Any] = []
        self._marks: list[tuple[int, Any, Phase]] = []
        self._calls: dict[Phase, int] = defaultdict(int)
        self._numbers: list[tuple[int, Phase]] = []

    @property
    def now(self) -> Phase:
        """The phase under way."""
        return self._stack[-1]

    def begin(self) -> None:
        """The step begins."""
        self._stack, self._marks, self._calls, self._numbers = [REST], [], defaultdict(int), []
        self._mark(REST)

    def end(self) -> Timed:
        """The step is over; on a GPU, once its work is done."""
        self._mark(REST)
        if self._cuda:
            torch.cuda.synchronize()
        told = Timed(turns=[(host, phase) for host, _, phase in self._marks], calls=dict(self._calls))
        seconds: dict[Phase, float] = defaultdict(float)
        for (host, event, phase), (later, other, _) in zip(self._marks, self._marks[1:], strict=False):
            passed = event.elapsed_time(other) / 1e3 if self._cuda else (later - host) / 1e9
            seconds[phase] += passed
        told.phases, told.seconds = dict(seconds), sum(seconds.values())
        return told

    # --- regions --------------------------------------------------------------------------------------------

    def enter(self, phase: Phase) -> None:
        """A phase begins inside the one under way."""
        self._stack.append(phase)
        self._calls[phase] += 1
        if self._named:
            region = record_function("/".join(part for part in ("llmfw", *phase) if part))
            region.__enter__()  # type: ignore[no-untyped-call]
            self._regions.append(region)
        self._mark(phase)

    def leave(self) -> None:
        """The phase that began last is over."""
        self._stack.pop()
        if self._named:
            self._regions.pop().__exit__(None, None, None)
        self._mark(self._stack[-1])

    def turn(self, phase: Phase) -> None:
        """The innermost phase goes on as another one."""
        if self._stack[-1] != phase:
            self._stack[-1] = phase
            self._mark(phase)

    @contextmanager
    def over(self, phase: Phase) -> Iterator[None]:
        """The block is that phase."""
        self.enter(phase)
        try:
            yield
        finally:
            self.leave()

    def around(self, phase: Phase, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, each of whose calls is that phase."""

        def called(*args: Any, **kwargs: Any) -> Any:
            with self.over(phase):
                return function(*args, **kwargs)

        return called

    def part(self, name: str) -> None:
        """A part of the model begins, in whatever pass is under way."""
        group = self._stack[-1][0]
        self.enter((RECOMPUTED if group in (BACKWARD, RECOMPUTED) else group, name))

    def _mark(self, phase: Phase) -> None:
        event = None
        if self._cuda:
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
        self._marks.append((time.perf_counter_ns(), event, phase))
        self._numbers.append((torch.autograd._get_sequence_nr(), phase))  # type: ignore[attr-defined]

    # --- the backward pass ----------------------------------------------------------------------------------

    def backward(self, objective: Tensor, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The backward pass of ``objective``, told apart by the phases in which its nodes were made.

        Autograd numbers nodes as they're made, so a node belongs to the phase under way at its number.
        Gradients of leaves are added up in whichever phase is under way.
        """
        with self.over(("measuring", "")):
            numbers = [number for number, _ in self._numbers]
            for node in _nodes(objective.grad_fn):
                at = bisect_right(numbers, node._sequence_nr()) - 1
                group, part = self._numbers[at][1] if at >= 0 else ("", "")
                key = (BACKWARD, part if group == FORWARD else "loss")
                node.register_prehook(lambda gradients, key=key: self._turned(key))
        with self.over((BACKWARD, "loss")):
            return function(objective, *args, **kwargs)

    def _turned(self, key: Phase) -> None:
        if self._stack[-1][0] == BACKWARD and self._stack[-1] != key:
            self._calls[key] += 1
            self.turn(key)


def _nodes(root: Any) -> Iterator[Any]:
    """Every node of a graph but those that add up a leaf's gradient."""
    seen: set[Any] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        following = [other for other, _ in node.next_functions]
        waiting += following
        if following:
            yield node
