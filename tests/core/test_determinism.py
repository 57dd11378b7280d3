"""Seeds for a purpose, and settings of the process that are undone."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest
import torch

from llmfw.core.determinism import derived_seed, pinned, seed_all, thread_count
from llmfw.core.schema import TrainerConfig


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), torch.rand(()).item()  # noqa: NPY002  # what plugins may use


def test_a_purpose_has_its_own_numbers_each_time_the_same() -> None:
    seed_all(7, "step", 3, 0)
    first = draws()
    seed_all(7, "step", 3, 0)
    assert draws() == first
    for other in [(8, "step", 3, 0), (7, "step", 4, 0), (7, "step", 3, 1), (7, "between", 3, 0)]:
        seed_all(*other)
        assert not set(draws()) & set(first), other


def test_labels_do_not_run_together() -> None:
    assert derived_seed(1, 23) != derived_seed(12, 3) and derived_seed(1, "a", "b") != derived_seed(1, "ab")


def test_a_seed_is_the_same_on_every_machine() -> None:
    """The first 8 bytes of SHA-256("7" + 0x1f + "step" + 0x1f + "3"), shifted right by one bit."""
    import hashlib

    digest = hashlib.sha256(b"7\x1fstep\x1f3").digest()
    assert derived_seed(7, "step", 3) == int.from_bytes(digest[:8], "big") // 2


@pytest.mark.parametrize("deterministic", [True, False])
def test_threads_and_deterministic_kernels_hold_inside_and_are_undone(deterministic: bool) -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with pinned(TrainerConfig(threads=3, deterministic=deterministic)) as count:
        assert count == torch.get_num_threads() == 3
        assert torch.are_deterministic_algorithms_enabled() == (deterministic or before[1])
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_threads_are_the_cores_shared_by_the_processes() -> None:
    cores = len(os.sched_getaffinity(0))
    assert thread_count(TrainerConfig()) == cores
    assert thread_count(TrainerConfig(devices=2)) == max(1, cores // 2)
    assert thread_count(TrainerConfig(devices=10_000)) == 1 and thread_count(TrainerConfig(threads=0)) == 1
