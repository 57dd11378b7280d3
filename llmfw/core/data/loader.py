"""The loader of optimizer steps: its position is one number, and what it yields depends on (seed, step)
alone.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from llmfw.core.batch import Batch, Layout
from llmfw.core.data.batches import collate, shadow
from llmfw.core.data.examples import Example
from llmfw.core.data.mixture import Mix, MixOrder
from llmfw.core.data.order import Order, StepOrder, micro_batches, stable_hash

Collate = Callable[[Sequence[Example]], Batch]


class StepLoader:
    """Iterates over optimizer steps: each item is this rank's list of micro-batches.

    Args:
        examples: the training samples; their ids are unique.
        collate: builds a batch of examples.
        micro_batch: samples (pairs) in one forward pass of one process.
        accumulate: forward passes per optimizer step; the global batch is micro_batch * accumulate * world.
        max_steps: where iteration ends, counted from step 0, over any number of epochs.
        start_step: the first step to yield; a resumed run passes the steps it has done.
        workers: processes that build batches ahead; they change nothing in what is yielded.
        order: ``order(examples, epoch) -> indices``, instead of shuffling.
        mix: weights of the examples' sources, instead of an order over all of them.
        pin: hand out batches in page-locked memory, which a GPU fetches while it works; with workers a thread
            sees to it.
        pad_id: of the shadow batches (``llmfw.core.data.shadow``) that a rank gets where samples are
            too few.

    Every rank gets the same number of micro-batches in a step, at most ``accumulate``; the samples of step s
    are the same for any world size at one global batch.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        collate: Collate,
        *,
        micro_batch: int,
        accumulate: int,
        seed: int,
        max_steps: int,
        start_step: int = 0,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        order: Order | None = None,
        mix: Mix | None = None,
        group_by_length: bool = True,
        pin: bool = False,
        pad_id: int = 0,
    ) -> None:
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} of {world}")
        samples, together = list(examples), micro_batch * accumulate * world
        self.order: StepOrder | MixOrder = (
            StepOrder(samples, together, seed, order, group_by_length)
            if mix is None
            else MixOrder(samples, together, seed, mix, group_by_length)
        )
        self.max_steps = max_steps
        self.workers, self.pin = workers, pin
        self._steps = _Steps(self.order, collate, micro_batch, rank, world, pad_id)
        self.set_start(start_step)

    @property
    def steps_per_epoch(self) -> float:
        """Optimizer steps in one pass over the data (of a mixture: in one epoch)."""
        return self.order.steps_per_epoch

    def sample_ids(self, step: int) -> tuple[str, ...]:
        """The ids of the samples that step ``step`` consumes, over all ranks."""
        samples = (self.order.examples[index] for index in self.order.samples(step))
        return tuple(name for example in samples for name in example.sample_ids)

    def set_start(self, step: int) -> None:
        """Let the next iteration begin with optimizer step ``step``."""
        if step < 0:
            raise ValueError(f"step {step}")
        self._next = step

    def state_dict(self) -> dict[str, int]:
        """The number of steps handed out; it's advanced before a step is handed out, so it's right also at an
        epoch's end.
        """
        return {"step": self._next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after the steps that ``state`` counts."""
        self.set_start(int(state["step"]))

    def __len__(self) -> int:
        """All steps from step 0, those before ``start_step`` included: that's how Lightning counts after a
        resume.
        """
        return self.max_steps

    def __iter__(self) -> Iterator[list[Batch]]:
        steps = range(self._next, self.max_steps)
        if self.workers and len(steps):
            source: Iterator[list[Batch]] = iter(self._workers(steps))
        else:
            source = (pinned(self._steps[step], self.pin) for step in steps)
        for step in steps:
            batches = next(source)
            self._next = step + 1
            yield batches

    def _workers(self, steps: range) -> DataLoader[Any]:
        # a generator of its own: otherwise the loader draws its base seed from the global one, and a resumed
        # run diverges
        return DataLoader(
            self._steps,
            batch_size=None,
            sampler=steps,
            num_workers=self.workers,
            collate_fn=_as_is,
            pin_memory=self.pin,
            generator=torch.Generator().manual_seed(self.order.seed),
            worker_init_fn=_one_thread,
        )


class _Steps(Dataset[list[Batch]]):
    """Maps a step to this rank's micro-batches."""

    def __init__(
        self,
        order: StepOrder | MixOrder,
        collate: Collate,
        micro_batch: int,
        rank: int,
        world: int,
        pad_id: int,
    ) -> None:
        self.order, self.collate, self.micro_batch = order, collate, micro_batch
        self.rank, self.world, self.pad_id = rank, world, pad_id

    def __getitem__(self, step: int) -> list[Batch]:
        samples = self.order.samples(step)
        epoch = self.order.epoch(step)
        batches: list[Batch] = []
        for indices in micro_batches(samples, self.micro_batch, self.rank, self.world):
            examples = [self.order.examples[index] for index in indices]
            with seeded(self.order.seed, epoch, *(example.id for example in examples)):
                empty = self.order.examples[samples[0]]
                idle = None if examples else _idle(self.collate, empty, self.pad_id)
                batches.append(idle or self.collate(examples))
        return batches


def gpu_waits(accelerator: str) -> bool:
    """Whether batches go to a GPU, by the setting ``trainer.accelerator``; such batches are worth pinning."""
    return accelerator in ("auto", "gpu") and torch.cuda.is_available()


def pinned(batches: list[Batch], pin: bool) -> list[Batch]:
    """The batches of a step, in page-locked memory if asked."""
    return [batch.pin_memory() for batch in batches] if pin else batches


@contextmanager
def seeded(*parts: object) -> Iterator[None]:
    """Random numbers drawn inside (python's and torch's CPU generator) depend on ``parts`` alone; outside
    nothing changes.

    Batches are built under ``seeded(seed, epoch, sample ids ...)``, so that the number of workers and the
    position in the run don't matter.
    """
    mine, theirs = random.getstate(), torch.get_rng_state()
    random.seed(stable_hash(*parts))
    torch.default_generator.manual_seed(stable_hash("torch", *parts))
    try:
        yield
    finally:
        random.setstate(mine)
        torch.set_rng_state(theirs)


def validation_batches(
    examples: Sequence[Example],
    collate: Collate,
    *,
    micro_batch: int,
    limit: int | None = None,
    rank: int = 0,
    world: int = 1,
    pad_id: int = 0,
) -> list[Batch]:
    """This rank's batches of the held-out samples, in their order, each of one source; every rank gets the
    same number (see ``StepLoader``).
    """
    first = list(examples)[:limit]
    batches: list[Batch] = []
    for source in dict.fromkeys(example.source for example in first):
        chosen = [example for example in first if example.source == source]
        for indices in micro_batches(range(len(chosen)), micro_batch, rank, world):
            picked = [chosen[index] for index in indices]
            batches.append(collate(picked) if picked else _idle(collate, chosen[0], pad_id))
    return batches


def source_of(examples: Sequence[Example]) -> Callable[[Batch], str | None]:
    """Which source of a mixture a batch of these examples is of, as a metric's name may say it; None for
    shadows and where there's no mixture.
    """
    known = {
        name: re.sub(r"[^\w./ -]", "_", example.source)
        for example in examples
        if example.source
        for name in example.sample_ids
    }
    return lambda batch: known.get(batch.sample_ids[0]) if batch.sample_ids else None


def _idle(collate: Collate, example: Example, pad_id: int) -> Batch:
    """A shadow batch; where the others carry the reference's log-probs it does too, so that no process asks a
    sharded reference alone.
    """
    batch = shadow(example, pad_id)
    if getattr(collate, "fills_reference", False):
        batch = replace(batch, reference_logps=torch.zeros(0))
    return batch


def collate_with(pad_id: int, layout: Layout = "padded") -> Collate:
    """``collate`` with padding id and layout bound; it can be sent to worker processes."""
    return partial(collate, pad_id=pad_id, layout=layout)


def _as_is(batches: list[Batch]) -> list[Batch]:
    return batches


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
