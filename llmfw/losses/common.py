"""What losses over completions share: sums over segments, the reference's log-probs, checks of settings.

Shapes: N trained tokens laid end to end, S segments (completions).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import torch
from torch import Tensor

from llmfw.core.batch import Batch
from llmfw.core.errors import PluginError, UsageError
from llmfw.core.records import Policy


def segment_sums(values: Tensor, segment: Tensor, n: int) -> Tensor:
    """[N] values summed by segment -> [n]; on a CPU in the tokens' order, so deterministic."""
    return torch.zeros(n, dtype=values.dtype, device=values.device).index_add(0, segment, values)


def reference_logps(batch: Batch, reference: Policy | None) -> Tensor:
    """[N] log-probs of the reference model, from the batch's cache where it has them.

    Raises:
        PluginError: the loss wants a reference, and its record asked for none.
    """
    if batch.reference_logps is not None:
        return batch.reference_logps
    if reference is None:
        raise PluginError(
            "LOSS-REFERENCE",
            "the loss compares with a reference model, and there is none",
            mend="set needs_reference=True in the plugin's Loss record",
        )
    with torch.no_grad():
        return reference.logps(batch).detach()


def check_setting(
    key: str, value: float, *, above: float | None = None, low: float = -inf, high: float = inf
) -> None:
    """Raise UsageError unless ``low <= value <= high``, and ``value > above`` where that is given."""
    if above is not None and not value > above:
        raise UsageError("LOSS-SETTING", f"{key} is {value}", mend=f"set it above {above:g}", key=key)
    if not low <= value <= high:
        raise UsageError(
            "LOSS-SETTING", f"{key} is {value}", mend=f"set it from {low:g} to {high:g}", key=key
        )


def check_choice(key: str, value: str, choices: Sequence[str]) -> None:
    """Raise UsageError unless ``value`` is among ``choices``."""
    if value not in choices:
        mend = f"set it to one of {', '.join(choices)}"
        raise UsageError("LOSS-SETTING", f"{key} is {value!r}", mend=mend, key=key)
