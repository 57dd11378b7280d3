"""What every side tells of its steps; it needs torch alone, as peers' programs import it too.

A side calls ``Clock.begin`` once it's ready, before its first step, and ``Clock.end`` after each. A step is
timed from the last one's end to its own: with the making of its batch, the optimizer's step, what is logged.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


class Clock:
    """Seconds, losses and memory of the steps of a job; the first ``warmup`` ones count for nothing but their
    losses. ``end`` of the last step writes the result and calls ``leave``: a trainer's own end (weights,
    checkpoints, evaluations) isn't asked about.
    """

    def __init__(self, job: dict[str, Any], leave: Callable[[int], None] = os._exit) -> None:
        self.job, self._leave = job, leave
        self.device = str(job.get("device", "cpu"))
        self.told: dict[str, Any] = {"losses": [], "seconds": [], "steps": []}
        self._last = 0.0

    def begin(self) -> None:
        """The first step is about to begin."""
        self._wait()
        self.told["setup_seconds"] = time.time() - self.job["launched"]
        self.told["loaded_gib"] = resident()
        self._last = time.perf_counter()

    def note(self, **told: Any) -> None:
        """Keep something beside the steps."""
        self.told |= told

    def end(self, loss: float, *, grad_norm: float | None = None, step: dict[str, Any] | None = None) -> None:
        """A step has ended."""
        self._wait()
        now = time.perf_counter()
        done = len(self.told["losses"])
        self.told["losses"].append(loss)
        if step is not None:
            self.told["steps"].append(step)
        if done == 0:
            self.told |= {"grad_norm": grad_norm, "first_step_seconds": time.time() - self.job["launched"]}
        if done >= self.job["warmup"]:
            self.told["seconds"].append(now - self._last)
        self._last = time.perf_counter()
        if done + 1 == self.job["warmup"] + self.job["steps"]:
            self.finish()

    def finish(self) -> None:
        """Write the result, and leave."""
        self.told["peak_gib"] = peak()
        if self.device == "cuda":
            self.told["gpu_gib"] = torch.cuda.max_memory_allocated() / 2**30
            self.told["gpu"] = torch.cuda.get_device_name()
        self.told["torch"] = torch.__version__
        out = Path(self.job["out"])
        partial = out.with_suffix(".partial")
        partial.write_text(json.dumps(self.told))
        partial.replace(out)
        self._leave(0)

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def read_job(argv: list[str]) -> dict[str, Any]:
    """The job that the one argument names; torch's threads are set as it says."""
    job: dict[str, Any] = json.loads(Path(argv[1]).read_text())
    torch.set_num_threads(job["threads"])
    return job


def steps_of(job: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The samples of each step, those of the warm-up first."""
    found: list[list[dict[str, Any]]] = json.loads(Path(job["batches"]).read_text())
    return found


def peak() -> float:
    """GiB of resident memory at its highest."""
    return _status("VmHWM")


def resident() -> float:
    """GiB of resident memory now."""
    return _status("VmRSS")


def _status(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 2**20
    raise RuntimeError(f"this system doesn't tell {name}")
