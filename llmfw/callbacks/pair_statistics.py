"""A torchmetrics metric over preference pairs: seven sums, from which any of the numbers below can be read.

Shapes: P pairs of a batch. The sums add up over batches and processes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics import Metric

from llmfw.callbacks.intervals import mean_interval, share_interval
from llmfw.core.records import Estimate

Longer = Literal["any", "chosen", "rejected"]


@dataclass(frozen=True)
class PairSums:
    """Of n pairs: wins (margin above 0); sums of margin and gap, of their squares, of their products."""

    n: float
    wins: float
    margin: float
    margin2: float
    gap: float
    gap2: float
    product: float

    @property
    def mean_margin(self) -> Estimate:
        """Mean margin with Student's t interval."""
        return mean_interval(round(self.n), self.margin, self.margin2)

    @property
    def accuracy(self) -> Estimate:
        """Share of pairs with a margin above 0, with Wilson's interval."""
        return share_interval(round(self.wins), round(self.n))

    @property
    def correlation(self) -> float:
        """Pearson's r of length gap and margin; NaN where one of them is constant."""
        over = self.n * self.product - self.gap * self.margin
        gap, margin = (self.n * s2 - s * s for s, s2 in ((self.gap, self.gap2), (self.margin, self.margin2)))
        # differences of large sums: what rounding leaves of a constant is no variance
        if gap <= 1e-12 * self.n * self.gap2 or margin <= 1e-12 * self.n * self.margin2:
            return math.nan
        return over / math.sqrt(gap * margin)


class PairStatistic(Metric):
    """``read(PairSums) -> number`` over all pairs, or those whose ``longer`` side is as named."""

    full_state_update = False
    sums: Tensor

    def __init__(self, read: Callable[[PairSums], float], longer: Longer = "any", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.read, self.longer = read, longer
        self.add_state("sums", torch.zeros(7, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, margin: Tensor, length_gap: Tensor) -> None:
        """Add a batch's pairs; ``length_gap`` is chosen minus rejected, tokens."""
        m, gap = margin.detach().to(self.sums.dtype), length_gap.to(self.sums.dtype)
        keep = {"any": torch.ones_like(gap, dtype=torch.bool), "chosen": gap > 0, "rejected": gap < 0}[
            self.longer
        ]
        m, gap = m[keep], gap[keep]
        columns = [torch.ones_like(m), (m > 0).to(m.dtype), m, m * m, gap, gap * gap, m * gap]
        self.sums += torch.stack(columns).sum(1)

    def compute(self) -> Tensor:
        """The number, as a float64 scalar."""
        return torch.tensor(float(self.read(PairSums(*self.sums.tolist()))), dtype=torch.float64)
