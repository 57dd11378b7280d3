"""The loss and its metrics over held-out batches, without Lightning: the same function for training, verbs
and plugins.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from llmfw.core.batch import Batch, LossOutput
from llmfw.core.errors import DataError
from llmfw.core.failpoints import failpoint
from llmfw.core.records import Loss, NamedMetric, Policy
from llmfw.core.training.ranks import gather_objects, read


@dataclass(frozen=True, kw_only=True)
class Validated:
    """What one pass over held-out batches found.

    ``metrics``: ``loss`` (mean over the loss's units) and the loss's and plugins' own, without a stage's
    prefix. ``details``: the loss's per-unit tensors of this process, laid end to end in the order of
    ``sample_ids``.
    """

    metrics: Mapping[str, float]
    units: int
    unit: str
    sample_ids: tuple[str, ...] = ()
    details: Mapping[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0


def units_of(loss: Loss, batch: Batch) -> int:
    """How many of the loss's units a micro-batch holds."""
    return {"tokens": batch.tokens, "sequences": batch.segments, "pairs": batch.segments // 2}[loss.unit]


class Sums:
    """(sum, count) by name in float64: what the device computed stays there, to be read in one go, and what
    the host knows never goes there.
    """

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor | float, Tensor | float]] = {}

    def add(
        self, output: LossOutput, units: int, auxiliary: Tensor | None, source: str | None = None
    ) -> None:
        """Add a micro-batch: its loss over its units (once more for its ``source``, where it's of one), its
        metrics, and the model's auxiliary loss where there's one.
        """
        self._add("loss", output.total, units)
        if source:
            self._add(f"loss/{source}", output.total, units)
        if auxiliary is not None:
            self._add("auxiliary_loss", auxiliary, 1)
        for name, (total, count) in output.metrics.items():
            self._add(name, total, count)

    def _add(self, name: str, total: Tensor | float, count: Tensor | float) -> None:
        old = self._sums.get(name, (0.0, 0.0))
        self._sums[name] = (old[0] + _wide(total), old[1] + _wide(count))

    @property
    def names(self) -> tuple[str, ...]:
        """Names in a fixed order."""
        return tuple(sorted(self._sums))

    def flat(self, names: Sequence[str]) -> list[Tensor | float]:
        """sum, count, sum, count ... of ``names``; zeros for one that no micro-batch gave."""
        return [value for name in names for value in self._sums.get(name, (0.0, 0.0))]


def _wide(value: Tensor | float) -> Tensor | float:
    return value.detach().double() if isinstance(value, Tensor) else float(value)


def means(names: Sequence[str], flat: Sequence[float]) -> dict[str, float]:
    """Mean by name; a name that nothing was counted for is left out."""
    pairs = zip(names, flat[::2], flat[1::2], strict=True)
    return {name: total / count for name, total, count in pairs if count}


def auxiliary_of(policy: Policy) -> Tensor | None:
    """The model's own loss of the last forward pass (load balancing and the like), where it has one."""
    value: Tensor | None = getattr(policy, "auxiliary", None)
    return value


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Modules in evaluation mode without gradients; afterwards every part is in the mode it was in."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes:
            part.training = mode


def validate(
    policy: Policy,
    loss: Loss,
    reference: Policy | None,
    batches: Iterable[Batch],
    metrics: Sequence[NamedMetric] = (),
    *,
    device: torch.device | str | None = None,
    shared: bool = False,
    source: Callable[[Batch], str | None] = lambda batch: None,
) -> Validated:
    """Mean loss and metrics of ``policy`` over ``batches``.

    Args:
        device: where batches go; by default where the policy's first parameter is.
        shared: the batches are this process's share of them, and every process of the run makes this call;
        without
            it nothing is exchanged, so that one process may validate alone.
        source: which source of a mixture a batch is of; its loss is told as ``loss/SOURCE`` too.

    Raises:
        DataError: NOTHING-TO-VALIDATE, where the batches hold no unit of the loss.
    """
    start = time.monotonic()
    sums, details, ids, units = Sums(), _Details(), list[str](), 0
    if device is None:
        device = next((p.device for p in policy.module.parameters()), torch.device("cpu"))
    own = [(metric, metric.factory().to(device)) for metric in metrics]
    for _, state in own:
        state._to_sync = state.sync_on_compute = shared  # torchmetrics gathers by itself wherever it can
    with evaluating(policy.module, *policy.companions.values()):
        for batch in batches:
            batch = batch.to(device)
            output: LossOutput = loss.call(policy, batch, reference)
            count = units_of(loss, batch)
            sums.add(output, count, auxiliary_of(policy), source(batch))
            for metric, state in own:
                metric.update(state, output, batch)
            details.add(output)
            ids += batch.sample_ids
            units += count
            failpoint("val.mid")
        flat = read(sums.flat(sums.names), torch.device(device))
    share = (sums.names, flat, units)
    shares = gather_objects(share) if shared else [share]
    total: dict[str, tuple[float, float]] = {}
    for names, values, _ in shares:
        for name, value, n in zip(names, values[::2], values[1::2], strict=True):
            before = total.get(name, (0.0, 0.0))
            total[name] = (before[0] + value, before[1] + n)
    units = int(sum(other[2] for other in shares))
    if not units:
        raise DataError(
            "NOTHING-TO-VALIDATE",
            "the held-out batches hold nothing that is trained",
            mend="check data.validation",
        )
    found = {name: value / n for name, (value, n) in total.items() if n}
    found |= {metric.name: float(state.compute()) for metric, state in own}
    return Validated(
        metrics=found,
        units=units,
        unit=loss.unit,
        sample_ids=tuple(ids),
        details=details.joined(),
        seconds=time.monotonic() - start,
    )


class _Details:
    def __init__(self) -> None:
        self._parts: list[Mapping[str, Tensor]] = []

    def add(self, output: LossOutput) -> None:
        self._parts.append({name: value.detach().cpu() for name, value in output.details.items()})

    def joined(self) -> dict[str, Tensor]:
        common = set.intersection(*(set(part) for part in self._parts)) if self._parts else set()
        return {name: torch.cat([part[name].reshape(-1) for part in self._parts]) for name in sorted(common)}
