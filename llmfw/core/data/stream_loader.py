"""The loader of optimizer steps over streamed samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmfw.core.batch import Batch
from llmfw.core.data.batches import shadow
from llmfw.core.data.examples import Example
from llmfw.core.data.loader import Collate, pinned, seeded
from llmfw.core.data.mixture import Mix, Schedule
from llmfw.core.data.order import micro_batches
from llmfw.core.data.report import DataReport
from llmfw.core.data.stream import Block, Feed, SourceStream, Tally
from llmfw.core.errors import DataError
from llmfw.core.say import is_main_process, say

_KEPT = 64
"""Steps that are remembered: more than any loop fetches ahead."""
_SAID = 3
"""How often skipped rows are told of while training; the report at the end has them all."""


@dataclass
class Stream:
    """The streamed training samples of a run: its sources, and where each step left them."""

    sources: list[SourceStream]
    report: DataReport
    mix: Mix | None = None
    max_bad: int = 0
    examples: list[Example] = field(default_factory=list)
    """The first samples, for a look at them."""
    _after: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    _ids: dict[int, tuple[str, ...]] = field(default_factory=dict)

    def head(self, count: int) -> list[Example]:
        """The first samples, at most as many as were kept."""
        return self.examples[:count]

    def note(self, step: int, ids: tuple[str, ...], position: Mapping[str, Any]) -> None:
        """Remember what step ``step`` consumed, and where the stream stands after it."""
        self._ids[step], self._after[step + 1] = ids, position
        for old in (step - _KEPT, step + 1 - _KEPT):
            self._ids.pop(old, None)
            self._after.pop(old, None)

    def sample_ids(self, step: int) -> tuple[str, ...]:
        """The ids of the samples of a step that was handed out lately."""
        return self._ids[step]

    def position(self, step: int) -> Mapping[str, Any] | None:
        """Where the stream stands once ``step`` steps are done; None where that isn't remembered."""
        return self._after.get(step)

    def restore(self, step: int, position: Mapping[str, Any]) -> None:
        """Take over a checkpoint's position."""
        self._after[step] = position

    def told(self, steps: int) -> dict[str, Any]:
        """What was streamed in ``steps`` steps, by source, as json; {} where that isn't remembered."""
        position = self.position(steps)
        if position is None:
            return {}
        return {label or "all": {"passes": said["pass"], **said["tally"]} for label, said in position.items()}


class StreamLoader:
    """Iterates over optimizer steps of a stream, like ``StepLoader``.

    Every process goes through the whole stream and builds its own micro-batches of it, so that the samples of
    a step are the same for any number of processes. From ``start_step`` on it begins at the position that the
    stream remembers, else it goes through all steps before.
    """

    def __init__(
        self,
        stream: Stream,
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
        group_by_length: bool = True,
        pin: bool = False,
        pad_id: int = 0,
        remember: bool = True,
    ) -> None:
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} of {world}")
        self.stream, self.collate, self.micro_batch = stream, collate, micro_batch
        self.global_batch = micro_batch * accumulate * world
        self.seed, self.max_steps, self.start_step = seed, max_steps, start_step
        self.rank, self.world, self.workers = rank, world, workers
        self.group_by_length, self.pad_id, self.remember = group_by_length, pad_id, remember
        self.pin = pin
        weights = stream.mix.weights if stream.mix is not None else {"": 1.0}
        self._schedule = Schedule(list(weights.values()))
        self.steps_per_epoch: float | None = None
        """A stream has no length."""

    def sample_ids(self, step: int) -> tuple[str, ...]:
        """The ids of the samples that step ``step`` consumes, over all ranks."""
        return self.stream.sample_ids(step)

    def __iter__(self) -> Iterator[list[Batch]]:
        for step, examples in self.examples():
            yield pinned(self._batches(step, examples), self.pin)

    def examples(self) -> Iterator[tuple[int, list[Example]]]:
        """(step, all its samples) from ``start_step`` on."""
        known = self.stream.position(self.start_step)
        begun = self.start_step if known is not None else 0
        bad = _Bad(self.stream, known)
        feeds = [
            Feed(source, self.workers, dict(known[source.source.label]) if known else None, bad)
            for source in self.stream.sources
        ]
        try:
            for step in range(begun, self.max_steps):
                start = step * self.global_batch
                draws = self._schedule.draws(start, start + self.global_batch)
                found = [feeds[source].next() for source, _ in draws]
                if step < self.start_step:
                    continue
                if self.group_by_length:
                    found.sort(key=lambda example: -example.length)
                if self.remember:
                    ids = tuple(name for example in found for name in example.sample_ids)
                    where = {feed.stream.source.label: feed.position() for feed in feeds}
                    self.stream.note(step, ids, where)
                yield step, found
        finally:
            for feed in feeds:
                feed.close()

    def _batches(self, step: int, examples: Sequence[Example]) -> list[Batch]:
        batches: list[Batch] = []
        for indices in micro_batches(range(len(examples)), self.micro_batch, self.rank, self.world):
            picked = [examples[index] for index in indices]
            with seeded(self.seed, step, *(example.id for example in picked)):
                batches.append(self.collate(picked) if picked else shadow(examples[0], self.pad_id))
        return batches


class _Bad:
    """Counts the bad rows of all sources, says so, and gives up beyond the limit."""

    def __init__(self, stream: Stream, known: Mapping[str, Any] | None) -> None:
        self._limit = stream.max_bad
        tallies = [Tally(**said["tally"]) for said in known.values()] if known else []
        self._count = sum(tally.bad for tally in tallies)
        self._said = 0

    def __call__(self, block: Block) -> None:
        self._count += block.bad
        if self._said < _SAID and is_main_process():
            self._said += 1
            say(f"note: {self._count} rows skipped so far, e.g. {block.messages[0]}")
        if self._count > self._limit:
            raise DataError(
                "BAD-ROWS",
                f"more than {self._limit} rows can't be used; the last: {(block.messages or ['?'])[-1]}",
                mend="mend the file, or raise data.max_bad_rows",
            )
