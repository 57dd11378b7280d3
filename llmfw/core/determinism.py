"""One run, one result: pinned threads, deterministic kernels, and random numbers that are a function of the
step.

The global generators are set anew at every step from (seed, label, step, rank). So no generator's state has
to be kept in a checkpoint, and what happens between two steps (validation, samples, a plugin's own draws)
can't change the training.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import torch

from llmfw.core.schema import TrainerConfig


def derived_seed(seed: int, *labels: str | int) -> int:
    """A seed below 2**63 for one purpose, the same on every machine and in every process."""
    text = "\x1f".join(str(part) for part in (seed, *labels))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_all(seed: int, *labels: str | int) -> None:
    """Set the generators of python, numpy and torch (all devices) for one purpose, e.g. ``seed_all(42,
    "step", 7, rank)``.
    """
    value = derived_seed(seed, *labels)
    random.seed(value)
    np.random.seed(value % 2**32)  # noqa: NPY002  # plugins may draw from the global generator
    torch.manual_seed(value)


def generators_digest() -> str:
    """SHA-256 over the states of the generators of python, numpy and torch (all devices)."""
    name, key, *rest = np.random.get_state(legacy=True)  # noqa: NPY002  # plugins may draw from it
    sums = hashlib.sha256(repr((random.getstate(), name, np.asarray(key).tolist(), rest)).encode())
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    for state in (torch.get_rng_state(), *devices):
        sums.update(state.numpy().tobytes())
    return sums.hexdigest()


def thread_count(trainer: TrainerConfig) -> int:
    """CPU threads of one process: the setting, else the cores this process may use divided by the
    processes.
    """
    if trainer.threads is not None:
        return max(1, trainer.threads)
    return max(1, len(os.sched_getaffinity(0)) // max(1, trainer.devices))


@contextmanager
def pinned(trainer: TrainerConfig) -> Iterator[int]:
    """Threads and deterministic kernels as the settings ask, undone afterwards; gives the number of threads.

    A sum of a million floats differs between one and two threads, so the count belongs to a run's
    fingerprint.
    """
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    count = thread_count(trainer)
    torch.set_num_threads(count)
    with suppress(RuntimeError):  # may be set once per process, before the first parallel work
        torch.set_num_interop_threads(1)
    if trainer.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is first used
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    try:
        yield count
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark
