"""What this machine can do, measured: matrix products, memory bandwidth, the price of one operator call."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from llmfw.core.cache import cache_dir
from llmfw.core.disk import write_whole

FRESH = 3600.0
"""Seconds for which a measurement is taken again from the cache: others come and go on a machine."""
_SHAPES = ((512, 512, 512), (1024, 576, 1536), (256, 2048, 2048))
_BUDGET = 2.0
"""Seconds that a measurement may take."""
_COPY = 16 * 2**20
"""Elements of the tensors that the bandwidth is measured on: larger than caches are."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Rates of one device with one number of threads."""

    gemm: float
    """FLOP/s of float32 matrix products, the median over a few shapes."""
    bandwidth: float
    """Bytes/s read and written by an elementwise operator."""
    call: float
    """Seconds that one operator call of a transformers model costs at the least, Python included."""
    threads: int


def measured(threads: int, device: str = "cpu") -> Machine:
    """This machine's rates, from the cache where they're fresh. Set the threads before."""
    name = f"{device}-{_processor()}-{os.cpu_count()}-{threads}-{torch.__version__}"
    note = cache_dir("machine") / f"{abs(hash_of(name)):x}.json"
    with suppress(OSError, ValueError, TypeError, KeyError):
        known = json.loads(note.read_text(encoding="utf-8"))
        if known["name"] == name and 0 <= time.time() - known["at"] < FRESH:
            return Machine(**known["rates"])
    found = Machine(gemm=_gemm(device), bandwidth=_bandwidth(device), call=_call(device), threads=threads)
    with suppress(OSError):
        write_whole(note, json.dumps({"name": name, "at": time.time(), "rates": asdict(found)}).encode())
    return found


def hash_of(name: str) -> int:
    """A number that stands for a name, the same in every process."""
    import hashlib

    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")


def now(device: str) -> float:
    """Seconds, once the device has done what it was asked to."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _gemm(device: str) -> float:
    pairs = [
        (torch.full((rows, inner), 0.01, device=device), torch.full((inner, columns), 0.01, device=device))
        for rows, inner, columns in _SHAPES
    ]
    jobs: list[Callable[[], object]] = [partial(torch.mm, left, right) for left, right in pairs]
    seconds = _interleaved(jobs, device)
    return statistics.median(
        2 * rows * inner * columns / taken
        for (rows, inner, columns), taken in zip(_SHAPES, seconds, strict=True)
    )


def _bandwidth(device: str) -> float:
    left, right = torch.full((_COPY,), 0.5, device=device), torch.full((_COPY,), 0.5, device=device)
    out = torch.empty_like(left)
    (taken,) = _interleaved([lambda: torch.add(left, right, out=out)], device, most=9)
    return 3 * out.nbytes / taken


def _call(device: str) -> float:
    """A tiny decoder's forward and backward pass, divided by the operator calls in it."""
    from transformers import LlamaConfig, LlamaModel

    from llmfw.core.models.rng import private_rng

    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "vocab_size": 32,
    }
    with private_rng(0):
        model: Any = LlamaModel(LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=1))
        model.to(device)
    ids = torch.zeros(1, 8, dtype=torch.long, device=device)

    def step() -> None:
        model(input_ids=ids, use_cache=False)[0].sum().backward()

    from llmfw.core.estimate.ghost import Ghost

    ghost = Ghost(device)
    with ghost:
        step()
    calls = ghost.ledger.handled
    model.zero_grad()
    (taken,) = _interleaved([step], device, most=25)
    return taken / calls


def _interleaved(jobs: list[Callable[[], object]], device: str, most: int = 15) -> list[float]:
    """The median seconds of each job, all in turn, within the budget; the first turn warms up."""
    for job in jobs:
        job()
    found: list[list[float]] = [[] for _ in jobs]
    end = time.perf_counter() + _BUDGET / 3
    for turn in range(most):
        if turn >= 3 and time.perf_counter() > end:
            break
        for own, job in zip(found, jobs, strict=True):
            start = now(device)
            job()
            own.append(max(now(device) - start, 1e-9))
    return [statistics.median(own) for own in found]


def _processor() -> str:
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return platform.processor()


@contextmanager
def still(threads: int) -> Iterator[None]:
    """The global random numbers and the number of threads are as before afterwards."""
    from llmfw.core.models.rng import global_state, restore_state

    state, before = global_state(), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        restore_state(state)
