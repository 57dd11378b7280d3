"""The guard before an update: a loss or gradient that isn't finite never reaches the weights."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmfw.core.errors import CheckpointError, NumericsError

_SMALLEST_SCALE = 1.0
"""A gradient that overflows float16 even at this scale isn't a matter of scale."""


@dataclass(frozen=True, kw_only=True)
class StepFacts:
    """What is known of a step before its update. ``totals``: summed loss per micro-batch, here and on every
    rank.
    """

    step: int
    lr: float
    sample_ids: Sequence[tuple[str, ...]]
    norm: float = 0.0
    totals: Sequence[float] = ()
    all_totals: Sequence[Sequence[float]] = ()

    def of(self, *, norm: float, totals: Sequence[float], all_totals: Sequence[Sequence[float]]) -> StepFacts:
        """The same with the numbers filled in."""
        return replace(self, norm=norm, totals=totals, all_totals=all_totals)


def refuse_nonfinite(
    facts: StepFacts,
    *,
    run_dir: Path,
    rank: int,
    scaler: Any,
    newest: Callable[[], Path | None],
    parameters: Callable[[], list[str]],
) -> None:
    """Return where loss and gradient norm are finite; with a float16 ``scaler`` an overflowed gradient may
    pass, since the scaler skips that update and lowers its scale.

    Raises:
        NumericsError: NON-FINITE, after step, samples and parameters were written to
        ``run_dir/nonfinite-step-N.json``.
    """
    losses = [total for row in facts.all_totals for total in row]
    loss_fine, norm_fine = all(map(math.isfinite, losses)), math.isfinite(facts.norm)
    if loss_fine and norm_fine:
        return
    if loss_fine and scaler is not None and scaler.get_scale() > _SMALLEST_SCALE:
        return
    bad = [i for i, total in enumerate(facts.totals) if not math.isfinite(total)]
    blamed = [name for i in (bad or range(len(facts.sample_ids))) for name in facts.sample_ids[i]]
    suffix = f"-rank{rank}" if rank else ""
    file = run_dir / f"nonfinite-step-{facts.step}{suffix}.json"
    report = {
        "step": facts.step,
        "lr": facts.lr,
        "grad_norm": repr(facts.norm),
        "micro_batches": [
            {"loss_sum": repr(total), "sample_ids": list(ids)}
            for total, ids in zip(facts.totals, facts.sample_ids, strict=True)
        ],
        "parameters": [] if norm_fine else parameters(),
    }
    run_dir.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    what = "the gradient" if loss_fine else "the loss"
    shown = ", ".join(blamed[:8]) + (f" and {len(blamed) - 8} more" if len(blamed) > 8 else "")
    last = _or_none(newest)
    good = f"; the last good checkpoint is {last}" if last else "; there is no checkpoint yet"
    raise NumericsError(
        "NON-FINITE",
        f"{what} isn't finite at step {facts.step} (samples {shown}; details in {file.name}){good}",
        mend="look at those samples, or lower optimizer.lr",
        file=run_dir,
    )


def _or_none(newest: Callable[[], Path | None]) -> Path | None:
    try:
        return newest()
    except CheckpointError:  # all of them damaged: what stopped the run is still the thing to report
        return None
