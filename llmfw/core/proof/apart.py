"""How far two folders of tensors are from each other: which bits differ, and by how much values do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Apart:
    """What differs between the safetensors files of two folders."""

    tensors: int = 0
    """Tensors that both have."""
    elements: int = 0
    bits: int = 0
    """Bits that differ."""
    largest: float = 0.0
    """Largest difference of a value, relative to its tensor's largest; inf where one isn't finite."""
    first: str = ""
    """The first tensor that differs, or what only one of them has."""

    @property
    def equal(self) -> bool:
        """Whether they hold the same tensors, bit for bit."""
        return not self.first

    def within(self, tolerance: float) -> bool:
        """Whether they hold tensors of the same names whose values differ by rounding."""
        return self.equal or (self.bits > 0 and self.largest <= tolerance)


def apart(one: Path, other: Path) -> Apart:
    """Compare two folders file by file and tensor by tensor; one tensor is in memory at a time."""
    from safetensors import safe_open

    files, others = _files(one), _files(other)
    if files.keys() != others.keys() or not files:
        odd = sorted(files.keys() ^ others.keys())
        return Apart(first=odd[0] if odd else "no tensors at all")
    tensors = elements = bits = 0
    largest, first = 0.0, ""
    for name in files:
        with ExitStack() as stack:
            mine, theirs = (
                stack.enter_context(safe_open(path, framework="pt")) for path in (files[name], others[name])
            )
            if odd := sorted(set(mine.keys()) ^ set(theirs.keys())):
                return Apart(first=f"{name}: {odd[0]}")
            for key in sorted(mine.keys()):
                a, b = mine.get_tensor(key), theirs.get_tensor(key)
                if a.shape != b.shape or a.dtype != b.dtype:
                    return Apart(first=f"{name}: {key} is {_form(a)} and {_form(b)}")
                found = _bits(a, b)
                tensors, elements, bits = tensors + 1, elements + a.numel(), bits + found
                if found:
                    first = first or f"{name}: {key}"
                    largest = max(largest, _relative(a, b))
    return Apart(tensors=tensors, elements=elements, bits=bits, largest=largest, first=first)


def _files(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in _sorted(folder)}


def _sorted(folder: Path) -> Iterator[Path]:
    yield from sorted(folder.rglob("*.safetensors"))


def _form(value: Tensor) -> str:
    return f"{value.dtype} {list(value.shape)}"


def _bits(one: Tensor, other: Tensor) -> int:
    raw, also = (value.contiguous().reshape(-1).view(torch.uint8).numpy() for value in (one, other))
    return int(np.bitwise_count(raw ^ also).sum(dtype=np.int64))


def _relative(one: Tensor, other: Tensor) -> float:
    a, b = one.double(), other.double()
    if not bool(a.isfinite().all() and b.isfinite().all()):
        return float("inf")
    return float((a - b).abs().max() / a.abs().max().clamp(min=1e-30))
