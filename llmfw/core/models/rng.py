"""Random numbers of one's own: seeds from names, and global generators that stay as they were."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_of(seed: int, name: str) -> int:
    """A seed below 2**63 that depends on the run's seed and on a name, equal on every machine."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big") >> 1


def generator_of(seed: int, name: str) -> torch.Generator:
    """A generator on the CPU seeded from ``(seed, name)``."""
    return torch.Generator().manual_seed(seed_of(seed, name))


def global_state() -> tuple[Any, ...]:
    """Snapshot of the global generators of Python, numpy and torch, comparable with ``same_state``."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002  # the global state is what is watched
    numpy_state = (kind, bytes(np.asarray(keys).tobytes()), position, has_gauss, gauss)
    cuda = tuple(torch.cuda.get_rng_state_all()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    return random.getstate(), numpy_state, torch.get_rng_state(), cuda


def same_state(left: tuple[Any, ...], right: tuple[Any, ...]) -> bool:
    """Whether two snapshots are equal."""
    return (
        left[:2] == right[:2]
        and torch.equal(left[2], right[2])
        and len(left[3]) == len(right[3])
        and all(torch.equal(a, b) for a, b in zip(left[3], right[3], strict=True))
    )


def restore_state(state: tuple[Any, ...]) -> None:
    """Put the global generators back to a snapshot."""
    random.setstate(state[0])
    kind, keys, position, has_gauss, gauss = state[1]
    np.random.set_state((kind, np.frombuffer(keys, dtype=np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    torch.set_rng_state(state[2])
    if state[3]:
        torch.cuda.set_rng_state_all(list(state[3]))


@contextmanager
def private_rng(seed: int) -> Iterator[None]:
    """Within the block the global torch generator starts from ``seed``; after it all global generators
    are as before.
    """
    before = global_state()
    torch.manual_seed(seed)
    try:
        yield
    finally:
        restore_state(before)
