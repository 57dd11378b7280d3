"""95% intervals by resampling items, for values that are functions of sums over items.

Shapes: I items, K columns of sums, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from llmfw.core.records import Estimate

RESAMPLES = 1000
_SEED = 20240229
_CELLS = 4_000_000
"""Most indices drawn at once."""


def estimate(columns: Tensor, statistic: Callable[[Tensor], Tensor]) -> Estimate:
    """The statistic of all items, with the 2.5% and 97.5% points of its values over resampled items.

    Args:
        columns: [I, K] what each item adds to each sum.
        statistic: [R, K] sums -> [R] values.

    Below two items the bounds are NaN. The draws are seeded: equal items give an equal interval.
    """
    columns = columns.double()
    items = columns.shape[0]
    value = float(statistic(columns.sum(0, keepdim=True))[0]) if items else math.nan
    if items < 2:
        return Estimate(value=value, low=math.nan, high=math.nan, n=items)
    values = torch.cat([statistic(sums) for sums in _resampled(columns)]).double()
    low, high = torch.quantile(values, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Estimate(value=value, low=low, high=high, n=items)


def mean(values: list[float]) -> Estimate:
    """The mean of values with its bootstrap interval."""
    ones = torch.ones(len(values), dtype=torch.float64)
    columns = torch.stack([torch.tensor(values, dtype=torch.float64), ones], 1)
    return estimate(columns, lambda sums: sums[:, 0] / sums[:, 1])


def _resampled(columns: Tensor) -> Iterator[Tensor]:
    """[R, K] sums over as many items as there are, drawn with replacement, part by part."""
    items = columns.shape[0]
    generator = torch.Generator().manual_seed(_SEED)
    part = max(1, min(RESAMPLES, _CELLS // items))
    for start in range(0, RESAMPLES, part):
        rows = min(part, RESAMPLES - start)
        drawn = torch.randint(items, (rows, items), generator=generator)
        times = torch.zeros(rows, items, dtype=torch.float64).scatter_add_(
            1, drawn, torch.ones(rows, items, dtype=torch.float64)
        )
        yield times @ columns
