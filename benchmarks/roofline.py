"""The machine's own rate: floating-point operations a second of a large matrix product, with the library that
all sides use.

    python -m benchmarks.roofline [cpu|cuda] [float32|bfloat16]    # prints one number

It is measured by a process of its own between the runs of the other sides, so that it sees the same machine.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch


def gemm_rate(
    device: str = "cpu", dtype: str = "float32", *, size: int = 2048, seconds: float = 1.0
) -> float:
    """Operations a second of a [size, size] product: the median of those made within ``seconds``."""
    one = torch.randn(size, size, device=device, dtype=getattr(torch, dtype))
    out = torch.empty_like(one)
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    torch.mm(one, one, out=out)
    wait()
    rates: list[float] = []
    until = time.perf_counter() + seconds
    while not rates or time.perf_counter() < until:
        start = time.perf_counter()
        torch.mm(one, one, out=out)
        wait()
        rates.append(2.0 * size**3 / (time.perf_counter() - start))
    return statistics.median(rates)


def main(device: str = "cpu", dtype: str = "float32", size: str = "2048") -> None:
    """Print the rate."""
    print(gemm_rate(device, dtype, size=int(size)))


if __name__ == "__main__":
    main(*sys.argv[1:])
