"""One step under torch's profiler: the operations that took longest, and a file that a timeline shows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from llmfw.core.profiling.phases import REST, Phase, Timed

MARK = "llmfw/step"
_TRACK = 2**31 - 2
"""Number of the track that shows the phases; no process has it."""


class Tracing:
    """torch's profiler over one step.

    The phases become a track of their own, also those of the backward pass, whose parts no region of torch's
    can hold: they begin and end in autograd's thread.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._cuda else [])]
        self._profiler: Any = profile(activities=kinds)

    @contextmanager
    def over(self) -> Iterator[None]:
        """Trace the block; what it does ends within it."""
        with self._profiler:
            with record_function(MARK):
                yield
            if self._cuda:
                torch.cuda.synchronize()

    def operators(self, count: int) -> list[dict[str, Any]]:
        """The operations with the most time of their own: name, ms, calls; on a GPU the kernels' time."""
        field = "self_device_time_total" if self._cuda else "self_cpu_time_total"
        found = [event for event in self._profiler.key_averages() if not event.key.startswith("llmfw/")]
        found.sort(key=lambda event: -getattr(event, field))
        return [
            {"name": event.key, "ms": getattr(event, field) / 1e3, "calls": event.count}
            for event in found[:count]
            if getattr(event, field) > 0
        ]

    def write(self, file: Path, timed: Timed) -> None:
        """Write the Chrome trace (Perfetto and chrome://tracing open it), the phases as its first track."""
        self._profiler.export_chrome_trace(str(file))
        told = json.loads(file.read_text(encoding="utf-8"))
        told["traceEvents"] += track(told["traceEvents"], timed)
        file.write_text(json.dumps(told), encoding="utf-8")


def track(events: Sequence[Mapping[str, Any]], timed: Timed) -> list[dict[str, Any]]:
    """A step's phases as events of a trace, on its clock by the region ``MARK`` that begins with them."""
    start = next((event["ts"] for event in events if event.get("name") == MARK and "dur" in event), None)
    if start is None or not timed.turns:
        return []
    zero = timed.turns[0][0]
    found: list[dict[str, Any]] = [
        {"ph": "M", "pid": _TRACK, "tid": 0, "name": name, "args": args}
        for name, args in (
            ("process_name", {"name": "phases of the step"}),
            ("process_sort_index", {"sort_index": -1}),
            ("thread_name", {"name": "phase"}),
        )
    ]
    for (begun, phase), (ended, _) in zip(timed.turns, timed.turns[1:], strict=False):
        found.append(
            {
                "ph": "X",
                "cat": "phase",
                "pid": _TRACK,
                "tid": 0,
                "name": name_of(phase),
                "ts": start + (begun - zero) / 1e3,
                "dur": (ended - begun) / 1e3,
            }
        )
    return found


def name_of(phase: Phase) -> str:
    """``backward: attention``; ``optimizer``."""
    return "the rest" if phase == REST else ": ".join(part for part in phase if part)
