"""What a training run is made of, and what Lightning takes for a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from llmfw.core.batch import Batch
from llmfw.core.costs.meter import Meter
from llmfw.core.records import Loss, NamedMetric, Policy
from llmfw.core.schema import OptimizerConfig


class Position(Protocol):
    """A source of batches with a position that isn't a function of the step alone."""

    def position(self, step: int) -> Mapping[str, Any] | None:
        """Where it stands once ``step`` steps are done, as json."""

    def restore(self, step: int, position: Mapping[str, Any]) -> None:
        """Take over a checkpoint's position."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """Everything that ``TrainModule`` needs; the factories are called inside Lightning's ``configure_model``.

    Batches come from ``loader``; where it is None, from the datamodule that ``Trainer.fit`` is given.
    """

    build: Callable[[], Any]
    """The model after every surgery; it has ``module`` (nn.Module) and ``companions`` (name -> nn.Module)."""
    policy: Callable[[Any], Policy]
    """(built) -> the façade whose log-probs are trained."""
    loss: Loss
    optimizer: OptimizerConfig
    groups: Callable[[Any, float], Sequence[Mapping[str, Any]]]
    """(built, weight_decay) -> parameter groups of the optimizer."""
    max_steps: int
    run_dir: Path
    seed: int
    loader: Callable[[int, int, int], Iterable[Sequence[Batch]]] | None = None
    """(start_step, rank, world) -> one list of micro-batches per optimizer step, from ``start_step`` on."""
    reference: Callable[[Any], Policy | None] | None = None
    """(built) -> the reference model's façade; None where the loss wants none."""
    settle: Callable[[Policy], None] | None = None
    """(policy) -> settles what depends on the model before the first batch is built: its layout."""
    metrics: Sequence[NamedMetric] = ()
    """Further metrics of the training stage; each covers one optimizer step."""
    rank_local: Callable[[Any], Sequence[str]] | None = None
    """(built) -> names in TrainModule's ``state_dict`` of parameters that differ between processes."""
    skip_nonfinite: int = 0
    """Steps that may be left out because their loss or gradient isn't finite."""
    log_every: int = 1
    """Optimizer steps between logged values; the first and the last step are always logged."""
    steps_per_epoch: float | None = None
    """Optimizer steps in one pass over the data, for the metric ``epoch``."""
    newest: Callable[[], Path | None] = lambda: None
    """The newest durable checkpoint, for messages."""
    save: Callable[..., None] | None = None
    """(built, folder, held) writes the trained weights in the form that ``model=FOLDER`` understands; without
    it they're kept under TrainModule's own names. ``held`` is what ``gather`` found, given only then."""
    gather: Callable[[Any, bool], Mapping[str, Any]] | None = None
    """(built, keep) -> whole tensors of a sharded model, for ``save``; every process calls it, one keeps
    them."""
    load: Callable[[Any, Path], None] | None = None
    """(built, folder) reads what ``save`` wrote, in place."""
    meter: Meter | None = None
    """Measures what plugins' parts cost on some of the steps; None: nothing is measured."""
    stream: Position | None = None
    """Where streamed data stands; kept in checkpoints."""
    about: Callable[[Any], Mapping[str, Any]] = lambda built: {}
    """(built) -> further keys of a checkpoint's manifest, json."""


class StepBatch:
    """The micro-batches of one optimizer step, moved between devices as one.

    Iterate over it, index it, take its length. It's no list, because Lightning's precision plugins would then
    try to change the frozen batches inside.
    """

    def __init__(self, micro_batches: Iterable[Batch]) -> None:
        self.micro_batches = tuple(micro_batches)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> StepBatch:
        """The step with every tensor on ``device``."""
        return StepBatch(batch.to(device, non_blocking=non_blocking) for batch in self.micro_batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.micro_batches)

    def __len__(self) -> int:
        return len(self.micro_batches)

    def __getitem__(self, index: int) -> Batch:
        return self.micro_batches[index]


class Steps:
    """An iterable without length or state: Lightning then neither counts epochs nor restores a position."""

    def __init__(self, steps: Iterable[Sequence[Batch]]) -> None:
        self._steps = steps

    def __iter__(self) -> Iterator[StepBatch]:
        return (StepBatch(step) for step in self._steps)
