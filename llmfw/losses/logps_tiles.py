"""How large a tile of logits should be: a model of what small tiles cost, and of what large ones weigh.

Shapes: N tokens, V words, D width; a tile is [C, W] of the [N, V] logits, W words by C tokens.

The tiles are walked words first: a block of W rows of the weight is read once and meets all tokens, C at a
time. Each matrix product of a tile does 2 C W D floating-point operations and moves operands of (C + W) D
numbers; over the four products (logits, logits again in the backward pass, gradient of the states, gradient
of the weight) a side moves five operands, 1.25 a product, because a gradient is read and written. With a
device that does B operations in the time it moves one byte, numbers of s bytes, and both sides alike, the
traffic costs the share

    1.25 s (C + W) B / (2 C W) = 1.25 s B / C        (C = W)

of the products' time, if no cache helps. The smallest side that stays below ``SHARE`` is therefore
``1.25 s B / SHARE``. A tile also costs about ten calls; its products must outweigh these by the same share.
What the sides may not exceed: the tile's memory stays within a fraction of the weight's own, which is alive
anyhow (and so is its gradient, if it is trained).
"""

from __future__ import annotations

from dataclasses import dataclass

SHARE = 0.05
"""Most of the products' time that may go into moving operands, or into calls."""
OPERANDS = 1.25
"""Operands that a side of a tile moves per product."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """What the model knows of a kind of device; orders of magnitude, a run is not tuned to its own card."""

    balance: float
    """Floating-point operations in the time that one byte takes from memory."""
    calls: float
    """Floating-point operations in the time that one tile's calls take."""
    least: int
    """Bytes that a tile may always have, however small the weight."""


DEVICES = {
    # one core of an EPYC (Zen 4): 72 to 90 GFLOP/s measured (benchmarks/lm_head.py); 10 GB/s and 100 us a
    # tile are assumed
    "cpu": Device(balance=9.0, calls=1e7, least=8 * 2**20),
    # data sheets of A100 (bf16: 312 TFLOP/s, 2.0 TB/s) and H100 (990, 3.35): 150 to 300; 100 us a tile. Not
    # measured.
    "cuda": Device(balance=300.0, calls=6e10, least=128 * 2**20),
}
"""By ``torch.device.type``; others count as cpu."""
RELATIVE = 0.25
"""A tile's memory at most, relative to the weight's."""


@dataclass(frozen=True, kw_only=True)
class Tile:
    """Sides of a tile of logits."""

    rows: int
    """C: tokens."""
    words: int
    """W: words of the vocabulary."""


def budget(vocabulary: int, width: int, itemsize: int, device: str) -> int:
    """Bytes of the logits alive at once: a quarter of the weight's at most, or the device's least if more."""
    return max(_device(device).least, int(RELATIVE * vocabulary * width * itemsize))


def tile_of(
    tokens: int, vocabulary: int, width: int, *, itemsize: int = 4, buffers: int = 1, device: str = "cpu"
) -> Tile:
    """The smallest tile whose overhead is below ``SHARE``, within the budget, evened out over both sides.

    Args:
        tokens, vocabulary, width: N, V, D.
        itemsize: bytes of a number of weight and states; the logits have 4, or 8 where these have.
        buffers: logits-sized buffers alive at once.
        device: ``torch.device.type``.
    """
    known = _device(device)
    side = _side(known, itemsize)
    rows = _even(tokens, side)
    # too little work for its calls (a narrow head, few tokens): more words at once
    area = known.calls / (2 * 4 * max(1, width) * SHARE)
    words = max(side, int(area / rows))
    numbers = max(1, budget(vocabulary, width, itemsize, device) // (max(4, itemsize) * buffers))
    if rows * words > numbers:
        # both sides give way together, because the smaller one costs most
        words = max(1, min(words, max(numbers // rows, int(numbers**0.5))))
        rows = _even(tokens, max(1, numbers // words))
    return Tile(rows=rows, words=_even(vocabulary, words))


def chunk_rows(
    tokens: int,
    vocabulary: int,
    itemsize: int = 4,
    *,
    width: int = 1024,
    buffers: int = 1,
    device: str = "cpu",
) -> int:
    """Rows per chunk of a head that only gives whole rows [C, V] of logits: the smallest number whose
    re-reading of the weight costs less than ``SHARE``, within the budget, evened out so that no small chunk
    is left over.

    Re-reading a weight of V D s bytes a product, OPERANDS times, against 2 C V D operations:
    ``C = OPERANDS * s * balance / (2 * SHARE)``.
    """
    known = _device(device)
    fewest = -(-_side(known, itemsize) // 2)
    most = max(1, budget(vocabulary, width, itemsize, device) // max(1, vocabulary * itemsize * buffers))
    return _even(tokens, min(fewest, most))


def overhead(tile: Tile, width: int, *, itemsize: int = 4, device: str = "cpu") -> float:
    """What the model says of a tile: the time of traffic and calls relative to the products' time."""
    known = _device(device)
    moved = OPERANDS * itemsize * (1 / tile.rows + 1 / tile.words) * known.balance / 2
    return moved + known.calls / (2 * 4 * tile.rows * tile.words * max(1, width))


def _side(known: Device, itemsize: int) -> int:
    return max(1, -int(-OPERANDS * itemsize * known.balance // SHARE))


def _even(total: int, most: int) -> int:
    """The size of parts of ``total``, each at most ``most`` and no part much smaller; at least 1."""
    parts = max(1, -(-total // most))
    return max(1, -(-total // parts))


def _device(device: str) -> Device:
    return DEVICES.get(device, DEVICES["cpu"])
