"""How fast this machine multiplies matrices: what a step's products are held against."""

from __future__ import annotations

import time

import torch

SIDE = {"cpu": 1536, "cuda": 8192}
_SECONDS = {"cpu": 1.5, "cuda": 0.5}


def gemm_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of the best of several square products, in the threads that the
    process uses now. Measured, not looked up: 0.6 of a data sheet's figure is common.
    """
    side = SIDE.get(device.type, SIDE["cpu"])
    cuda = device.type == "cuda"
    left = torch.ones(side, side, device=device, dtype=dtype)
    right, out = left.clone(), torch.empty_like(left)
    best, begun, rounds = float("inf"), time.perf_counter(), 0
    while rounds < 3 or time.perf_counter() - begun < _SECONDS.get(device.type, 1.0):
        if cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        torch.mm(left, right, out=out)
        if cuda:
            torch.cuda.synchronize()
        best, rounds = min(best, time.perf_counter() - start), rounds + 1
    return 2.0 * side**3 / best


def product_dtype(precision: str, held: torch.dtype) -> torch.dtype:
    """In which numbers a run's matrix products are: Lightning's ``precision``, else that of the weights."""
    if precision.startswith("bf16"):
        return torch.bfloat16
    if precision.startswith("16"):
        return torch.float16
    return torch.float64 if precision.startswith("64") else held
