"""Filling a cache: which examples a process takes next, in which batches, and when it writes them down."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from filelock import FileLock
from torch import Tensor

from llmfw.core.batch import Batch
from llmfw.core.errors import NumericsError
from llmfw.core.models.reference_cache.claims import Claim, Claims
from llmfw.core.models.reference_cache.keys import Sample
from llmfw.core.models.reference_cache.parts import Entry, write_part

_log = logging.getLogger(__name__)
BUDGET = 4096
"""Positions of a batch. A pass without gradients keeps one layer's states at a time, so this is far less
memory than a training step takes."""
_SECONDS = 15.0
"""Of work in one claim, which becomes one part: what a kill can cost, and what others may wait for."""
_MOST = 4096
"""Examples in one claim."""
_POLL = 0.2


@dataclass(frozen=True, kw_only=True)
class Filled:
    """What one process computed."""

    samples: int = 0
    tokens: int = 0
    """Positions that went through the model, without padding."""
    seconds: float = 0.0
    """Of forward passes and writing, without waiting for other processes."""


@dataclass(frozen=True, kw_only=True)
class State:
    """How a filling stands. Tokens are those of ``Filled``, of all processes together."""

    samples: int
    """Computed by this process."""
    left: int
    """Samples that nobody has computed yet."""
    tokens: int
    """Computed by all processes since this one began."""
    tokens_left: int
    seconds: float
    """Since this one began."""

    @property
    def speed(self) -> float:
        """Tokens a second, of all processes."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float:
        """At the speed so far."""
        return self.tokens_left / self.speed if self.speed > 0 else float("inf")


class _Cache(Protocol):
    folder: Path

    def has(self, key: bytes) -> bool: ...
    def read(self) -> None: ...


class Filling:
    """One process's part in filling a cache; for the arguments see ``ReferenceCache.fill``."""

    def __init__(
        self,
        cache: _Cache,
        wanted: Mapping[bytes, Any],
        collate: Callable[[Sequence[Any]], Batch],
        logps: Callable[[Batch], Tensor],
        *,
        budget: int,
        padded: bool,
        progress: Callable[[State], None] | None,
    ) -> None:
        self._cache, self._collate, self._logps = cache, collate, logps
        self._budget, self._padded, self._progress = budget, padded, progress
        order = sorted(wanted.items(), key=lambda item: (_form(item[1]), -_width(item[1])))
        self._todo: dict[bytes, Any] = dict(order)
        self._left = 0
        self._claims = Claims(cache.folder)
        self._lock = FileLock(cache.folder / ".lock")
        self._begun = time.monotonic()
        self._all = 0
        self._samples = self._tokens = 0
        self._seconds = 0.0

    def run(self) -> Filled:
        """Compute until nothing is missing, whoever computes it."""
        first, waits = True, False
        while True:
            taken, claim = self._take(first)
            first = False
            if claim is not None:
                try:
                    self._compute(taken)
                finally:
                    claim.give_back()
            elif self._todo:  # others have claimed all that is left
                if not waits:
                    _log.warning("another process computes the last of %s; waiting", self._cache.folder)
                waits = True
                time.sleep(_POLL)
            else:
                return Filled(samples=self._samples, tokens=self._tokens, seconds=self._seconds)

    def _take(self, first: bool) -> tuple[dict[bytes, Any], Claim | None]:
        """What this process computes next: the longest that nobody has computed or claimed."""
        with self._lock:
            # claims first: one that is given back after this look has its part written by now
            held = self._claims.held()
            self._cache.read()
            self._todo = {key: one for key, one in self._todo.items() if not self._cache.has(key)}
            self._left = sum(_tokens(one) for one in self._todo.values())
            if first:
                self._all = self._left
            taken: dict[bytes, Any] = {}
            tokens, room = 0, self._room()
            for key, example in self._todo.items():
                if key in held:
                    continue
                if taken and (tokens >= room or len(taken) >= _MOST):
                    break
                taken[key] = example
                tokens += _tokens(example)
            return taken, self._claims.claim(list(taken)) if taken else None

    def _room(self) -> float:
        """Tokens in the next claim: one batch, until it's known how many pass in ``_SECONDS``."""
        return max(float(self._budget), self._tokens / self._seconds * _SECONDS if self._seconds else 0.0)

    def _compute(self, taken: Mapping[bytes, Any]) -> None:
        """Forward passes over what was claimed, and one part; also what an interruption leaves is kept."""
        entries: list[Entry] = []
        keys = {id(example): key for key, example in taken.items()}
        start = time.monotonic()
        try:
            for members in batches(list(taken.values()), self._budget, self._padded):
                rows = self._rows(members)
                entries += [(keys[id(one)], row) for one, row in zip(members, rows, strict=True)]
                for one in members:
                    del self._todo[keys[id(one)]]
                    self._left -= _tokens(one)
                    self._samples, self._tokens = self._samples + 1, self._tokens + _tokens(one)
                if self._progress is not None:
                    self._progress(self._state())
        finally:
            if entries:
                write_part(self._cache.folder, entries)
            self._seconds += time.monotonic() - start

    def _rows(self, members: Sequence[Any]) -> list[list[Tensor]]:
        """The log-probs of each example, sequence by sequence."""
        with torch.inference_mode():
            batch = self._collate(members)
            values = self._logps(batch).float().cpu()
        if bool(values.isnan().any()):
            raise NumericsError(
                "REFERENCE-NAN",
                f"the reference gives no number for one of {', '.join(one.id for one in members)}",
                mend="check the model's weights, or use another model.dtype or trainer.precision",
            )
        parts = list(torch.split(values, batch.length.tolist()))
        owners: list[tuple[int, int]] = []
        if _form(members[0])[0]:
            owners = [(row, side) for row, one in enumerate(members) for side in range(len(one.sequences))]
        else:
            owners = [(row, side) for side in range(len(members[0].sequences)) for row in range(len(members))]
        if len(owners) != len(parts):
            raise ValueError(
                f"{len(parts)} segments for {len(owners)} sequences: collate's order isn't known here"
            )
        laid: list[list[Tensor]] = [[torch.empty(0)] * len(one.sequences) for one in members]
        for (row, side), part in zip(owners, parts, strict=True):
            laid[row][side] = part
        return laid

    def _state(self) -> State:
        return State(
            samples=self._samples,
            left=len(self._todo),
            tokens=self._all - self._left,
            tokens_left=self._left,
            seconds=time.monotonic() - self._begun,
        )


def batches(examples: Sequence[Any], budget: int, padded: bool) -> Iterator[list[Any]]:
    """Examples in their order, cut into batches of at most ``budget`` positions and one form each."""
    members: list[Any] = []
    for example in examples:
        if members and (
            _form(example) != _form(members[0]) or _positions([*members, example], padded) > budget
        ):
            yield members
            members = []
        members.append(example)
    if members:
        yield members


def _positions(members: Sequence[Any], padded: bool) -> int:
    if not padded:
        return sum(map(_tokens, members))
    rows = 1 if _form(members[0])[0] else len(members[0].sequences)
    return len(members) * rows * max(map(_width, members))


def _form(example: Any) -> tuple[bool, int, int]:
    """Examples of one form go into one batch: packed or not, and their number of sequences if not; which
    have an encoder's side.
    """
    packed = bool(getattr(example, "packed", False))
    encoder = any(getattr(sequence, "encoder", ()) for sequence in example.sequences)
    return packed, 0 if packed else len(example.sequences), int(encoder)


def _width(example: Any) -> int:
    """Positions of the longest row that the example needs."""
    lengths = [len(sequence.ids) + len(getattr(sequence, "encoder", ())) for sequence in example.sequences]
    return sum(lengths) if getattr(example, "packed", False) else max(lengths)


def _tokens(example: Sample) -> int:
    return sum(len(one.ids) + len(getattr(one, "encoder", ())) for one in example.sequences)
