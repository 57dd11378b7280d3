"""Which samples an optimizer step sees: a pure function of (seed, step), the same for any number of
processes.

An epoch of n samples has ceil(n / G) steps, where G = micro_batch * accumulate * world is the global batch.
Its samples are dealt out evenly, so steps of one epoch differ by at most one sample and every sample occurs
once; there's no tiny last step. Nothing here draws from a global generator or from a library whose stream
might change: the order is that of hashes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from llmfw.core.data.examples import Example
from llmfw.core.errors import DataError

Order = Callable[[list[Example], int], Sequence[int]]
"""``order(examples, epoch) -> indices``, each exactly once."""

_WINDOW = 16  # steps whose samples are sorted by length together


def stable_hash(*parts: object) -> int:
    """64 bits that depend on the parts alone: equal on every machine, in every process and version."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big"
    )


@dataclass
class StepOrder:
    """The samples of each step, as indices into ``examples``.

    With ``group_by_length`` a step's samples are of like length (steps come in random order); an ``order`` of
    a plugin replaces shuffling and grouping altogether.
    """

    examples: list[Example]
    global_batch: int
    seed: int
    order: Order | None = None
    group_by_length: bool = True
    _epoch: int = field(default=-1, init=False)
    _plan: list[list[int]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if not self.examples:
            raise DataError(
                "NO-SAMPLES",
                "there is nothing to train on",
                mend="check data.name and the counts that the data report prints",
            )
        if self.global_batch < 1:
            raise ValueError(f"global batch {self.global_batch}")

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the data."""
        return -(-len(self.examples) // self.global_batch)

    def epoch(self, step: int) -> int:
        """The epoch that a step belongs to."""
        return step // self.steps_per_epoch

    def samples(self, step: int) -> list[int]:
        """The samples of optimizer step ``step`` (from 0)."""
        epoch, at = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._plan = epoch, self._steps(epoch)
        return self._plan[at]

    def _steps(self, epoch: int) -> list[list[int]]:
        if self.order is not None:
            return self._deal(self._ordered(epoch))
        keys = [stable_hash(self.seed, epoch, example.id) for example in self.examples]
        shuffled = sorted(range(len(keys)), key=lambda index: (keys[index], index))
        if not self.group_by_length:
            return self._deal(shuffled)
        # a window is at most a quarter of an epoch: with one window an epoch, each would consist of the same
        # steps
        window = max(1, min(_WINDOW, self.steps_per_epoch // 4))
        steps: list[list[int]] = []
        dealt = self._deal(shuffled)
        for start in range(0, len(dealt), window):
            together = dealt[start : start + window]
            pool = sorted(
                (index for step in together for index in step), key=lambda index: -self.examples[index].length
            )
            for step in together:
                steps.append(pool[: len(step)])
                pool = pool[len(step) :]
        return sorted(
            steps, key=lambda step: stable_hash(self.seed, epoch, "step", self.examples[step[0]].id)
        )

    def _ordered(self, epoch: int) -> list[int]:
        assert self.order is not None
        indices = [int(index) for index in self.order(self.examples, epoch)]
        if sorted(indices) != list(range(len(self.examples))):
            missing = sorted(set(range(len(self.examples))) - set(indices))[:3]
            raise DataError(
                "ORDER",
                f"the order of epoch {epoch} has {len(indices)} indices for {len(self.examples)} samples "
                "and is no permutation" + (f" (missing: {missing})" if missing else ""),
                mend="return each index exactly once from the plugin's order transform",
            )
        return indices

    def _deal(self, indices: list[int]) -> list[list[int]]:
        return split_evenly(indices, self.steps_per_epoch)


def split_evenly(items: Sequence[int], parts: int) -> list[list[int]]:
    """``parts`` consecutive slices whose lengths differ by at most one, the longer ones first."""
    size, longer = divmod(len(items), parts)
    slices: list[list[int]] = []
    start = 0
    for part in range(parts):
        stop = start + size + (part < longer)
        slices.append(list(items[start:stop]))
        start = stop
    return slices


def micro_batches(samples: Sequence[int], micro_batch: int, rank: int, world: int) -> list[list[int]]:
    """Rank ``rank``'s micro-batches of a step; an empty one is to be run as a shadow.

    The step is cut evenly into slots of at most ``micro_batch`` samples, and slot j belongs to rank j %
    world; every rank gets the same number. A slot stays empty only where samples are fewer than slots, e.g. 3
    samples for 4 processes.
    """
    slots = -(-len(samples) // (micro_batch * world)) * world
    return split_evenly(samples, slots)[rank::world]
