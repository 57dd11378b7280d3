"""The micro-batches that a run will train on: which is the largest, and how large each step is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from llmfw.core.assemble import Assembled
from llmfw.core.batch import Batch
from llmfw.core.data import Example, Prepared, StepLoader, prepare
from llmfw.core.data.batches import common_prompt
from llmfw.core.data.order import micro_batches
from llmfw.core.errors import DataError
from llmfw.core.training.layout import SHARED_PAYS, Layer, layouts_of, shared_share

MOST_STEPS = 4096
"""Steps that are looked at; of a longer run the first ones stand for all."""
_TRIED = 4
"""Micro-batches that are built to find the one with most positions."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """One micro-batch before it's built: which samples, and how large they are laid out as rows."""

    indices: tuple[int, ...]
    positions: int
    """As the run's layout lays them out, padding included."""
    real: int
    """Tokens."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a run trains on with one division of its steps into micro-batches."""

    steps: int
    """Optimizer steps of the run."""
    accumulate: int
    """Most micro-batches in a step of one process."""
    divided: tuple[tuple[Sizes, ...], ...]
    """The first process's micro-batches of each step, at most ``MOST_STEPS`` of them."""
    largest: Batch
    """The micro-batch with most positions."""
    typical: Batch
    """The micro-batch of middle size."""
    layout: str
    """How batches are laid."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A run's samples."""

    assembled: Assembled
    examples: tuple[Example, ...]
    order: Any = None
    mix: Any = None
    streamed: bool = False


def source_of(assembled: Assembled) -> Source:
    """The run's samples, prepared as for training (tokens come from the cache where it has them).

    Raises:
        DataError: data that can't be used, or that only the run's own code can deal out.
    """
    from lightning.pytorch import LightningDataModule

    module = assembled.plan.one("llmfw_datamodule")
    if isinstance(module, LightningDataModule):
        raise DataError(
            "ESTIMATE",
            "can't estimate a bare LightningDataModule: only training itself sees its batches",
            mend="set trainer.micro_batch by hand",
            key="data.name",
        )
    prepared: Prepared = prepare(
        assembled.run.config, assembled.tokenizer, assembled.transforms, module, assembled.sides
    )
    return Source(
        assembled=assembled,
        examples=tuple(prepared.train or prepared.head(64)),
        order=prepared.order,
        mix=prepared.mix if prepared.stream is None else None,
        streamed=prepared.stream is not None,
    )


def work_of(source: Source, micro_batch: int, accumulate: int) -> Work:
    """The run's steps with these counts."""
    root = source.assembled.run.config
    world = root.trainer.devices * root.trainer.nodes
    examples = list(source.examples)
    build = Builder(source)
    if source.streamed:
        return _streamed(source, micro_batch, accumulate, build)
    loader = StepLoader(
        examples,
        build.collate,
        micro_batch=micro_batch,
        accumulate=accumulate,
        seed=root.seed,
        max_steps=1,
        world=world,
        group_by_length=root.data.group_by_length,
        order=source.order,
        mix=source.mix,
    )
    steps = _steps(root.trainer, loader.steps_per_epoch)
    divided = tuple(
        tuple(
            _sizes(examples, indices, build.layout)
            for indices in micro_batches(loader.order.samples(step), micro_batch, 0, world)
            if indices
        )
        for step in range(max(1, min(steps, MOST_STEPS)))
    )
    flat = [one for step in divided for one in step]
    by_size = sorted(flat, key=lambda one: (one.positions, one.real))
    return Work(
        steps=steps,
        accumulate=max(map(len, divided)),
        divided=divided,
        largest=_most([by_size[-1], *sorted(flat, key=lambda one: -one.real)[: _TRIED - 1]], build),
        typical=build(_middle(flat).indices),
        layout=build.layout,
    )


class Builder:
    """Builds batches as training does, with the reference's log-probs where a cache will hold them."""

    def __init__(self, source: Source) -> None:
        root = source.assembled.run.config
        loss = source.assembled.plan.one("llmfw_loss")
        self._examples = source.examples
        self._cached = bool(loss.needs_reference) and root.trainer.reference == "cache"
        self.collate = _layer_of(source.assembled, source.examples)
        self.layout = self.collate.layout

    def __call__(self, indices: Sequence[int]) -> Batch:
        """The micro-batch of the samples at these places."""
        return self.of([self._examples[index] for index in indices])

    def of(self, examples: Sequence[Example]) -> Batch:
        """The micro-batch of these samples."""
        batch: Batch = self.collate(examples)
        return replace(batch, reference_logps=torch.zeros(batch.tokens)) if self._cached else batch


def _layer_of(assembled: Assembled, examples: Sequence[Example]) -> Layer:
    """How the run's batches will be laid, a model that keeps samples apart taken for granted."""
    allowed = layouts_of(assembled.plan, assembled.run.config, assembled.model_config).allowed
    head = list(examples[:MOST_STEPS])
    pays = shared_share(head) >= SHARED_PAYS
    layout = next((one for one in allowed if one != "shared_prompt" or pays or len(allowed) == 1), allowed[0])
    return Layer(assembled.tokenizer.pad_token_id, layout)


def _steps(trainer: Any, per_epoch: float) -> int:
    if trainer.max_steps is not None:
        return int(trainer.max_steps)
    return max(1, -int(-(trainer.epochs if trainer.epochs is not None else 1.0) * per_epoch // 1))


def _sizes(examples: Sequence[Example], indices: Sequence[int], layout: str = "padded") -> Sizes:
    members = [examples[index] for index in indices]
    lengths = [len(sequence) for example in members for sequence in example.sequences]
    real = sum(lengths)
    if layout == "shared_prompt":
        positions = real - sum(
            common_prompt(*example.sequences) for example in members if example.kind == "preference"
        )
    elif layout == "packed" or any(example.packed for example in members):
        positions = real
    else:
        positions = max(lengths) * len(lengths)
    return Sizes(indices=tuple(indices), positions=positions, real=real)


def _most(tried: Sequence[Sizes], build: Callable[[Sequence[int]], Batch]) -> Batch:
    batches = [build(indices) for indices in dict.fromkeys(one.indices for one in tried)]
    return max(batches, key=lambda batch: (batch.input_ids.numel(), batch.tokens))


def _middle(flat: Sequence[Sizes]) -> Sizes:
    ordered = sorted(flat, key=lambda one: (one.real, one.positions))
    return ordered[len(ordered) // 2]


def _streamed(source: Source, micro_batch: int, accumulate: int, build: Any) -> Work:
    """Of streamed data the first rows are known: the longest of them stand for every micro-batch."""
    root = source.assembled.run.config
    ordered = sorted(range(len(source.examples)), key=lambda index: -source.examples[index].length)
    longest = tuple(ordered[index % len(ordered)] for index in range(micro_batch))
    middle = tuple(ordered[len(ordered) // 2] for _ in range(micro_batch))
    sizes = _sizes(source.examples, middle, build.layout)
    return Work(
        steps=int(root.trainer.max_steps or 1),
        accumulate=accumulate,
        divided=((sizes,) * accumulate,),
        largest=build(longest),
        typical=build(middle),
        layout=build.layout,
    )
