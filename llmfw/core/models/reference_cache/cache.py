"""The cache of one reference model: what is there, what is missing, and batches with it filled in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmfw.core.batch import Batch
from llmfw.core.cache import cache_dir, mark_used
from llmfw.core.disk import write_whole
from llmfw.core.errors import CheckpointError
from llmfw.core.models.reference_cache.filling import BUDGET, Filled, Filling, State
from llmfw.core.models.reference_cache.keys import Sample, example_key, folder_of
from llmfw.core.models.reference_cache.parts import PATTERN, Part
from llmfw.core.models.source import read_json

Collate = Callable[[Sequence[Any]], Batch]


class ReferenceCache:
    """Log-probs of one reference model, in memory-mapped files. It can be sent to worker processes.

    Args:
        key: from ``reference_key``.
        folder: where caches live; None: the user's cache.
        about: what people should know of the key, such as the model's name; kept beside it.
        make: False: to look at only; nothing is written, and the folder needn't exist.

    Raises:
        CheckpointError: the folder holds another key's numbers, or a damaged file.
    """

    def __init__(
        self,
        key: Mapping[str, Any],
        folder: Path | None = None,
        *,
        about: Mapping[str, Any] | None = None,
        make: bool = True,
    ) -> None:
        self.key = json.loads(json.dumps(dict(key)))
        self.folder = (folder or cache_dir("reference")) / folder_of(self.key)
        self._batch_keys: tuple[str, ...] = tuple(self.key.get("batch_keys", ()))
        self._parts: dict[str, Part] = {}
        self._where: dict[bytes, tuple[Part, int]] = {}
        note = self.folder / "key.json"
        if not make and not note.is_file():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if not note.is_file():
            told = {"key": self.key, "about": dict(about or {})}
            write_whole(note, json.dumps(told, indent=1, sort_keys=True).encode())
        elif read_json(note).get("key") != self.key:
            raise CheckpointError(
                "CACHE-KEY",
                "the cache belongs to another reference",
                mend="delete the folder",
                file=self.folder,
            )
        if make:
            mark_used(self.folder)
        self.read()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.key, self.folder.parent)

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, example: Sample) -> bool:
        return self.key_of(example) in self._where

    def key_of(self, example: Sample) -> bytes:
        """The example's entry, whether it is there or not."""
        return example_key(example, self._batch_keys)

    def has(self, key: bytes) -> bool:
        """Whether an entry is there."""
        return key in self._where

    def missing(self, examples: Iterable[Sample]) -> list[Any]:
        """The examples that have no entry yet, each content once, in order."""
        found: dict[bytes, Any] = {}
        for example in examples:
            key = self.key_of(example)
            if key not in self._where:
                found.setdefault(key, example)
        return list(found.values())

    def fill(
        self,
        examples: Sequence[Any],
        collate: Collate,
        logps: Callable[[Batch], Tensor],
        *,
        budget: int = BUDGET,
        padded: bool = True,
        progress: Callable[[State], None] | None = None,
    ) -> Filled:
        """Compute what is missing, longest examples first; other processes that fill the same cache share
        the work, and each example is computed by one of them.

        A kill costs what was computed since the last part was written, some 15 seconds' work.

        Args:
            collate: examples -> batch whose segments are ordered by sequence, then example (as
                ``llmfw.core.data`` does).
            logps: the reference's, [N], called in inference mode; it takes care of devices.
            budget: positions of a batch; an example that needs more stands alone.
            padded: whether ``collate`` fills rows up to the longest, so that filling counts.
            progress: called after each batch.

        Raises:
            NumericsError: REFERENCE-NAN, a log-prob that is no number.
        """
        wanted = {self.key_of(example): example for example in examples}
        if all(key in self._where for key in wanted):
            return Filled()
        filling = Filling(self, wanted, collate, logps, budget=budget, padded=padded, progress=progress)
        return filling.run()

    def lookup(self, examples: Sequence[Sample]) -> Tensor | None:
        """[N] log-probs in the order in which ``collate`` lays the trained tokens of ``examples``; None
        if one is absent.
        """
        found: list[list[Tensor]] = []
        for example in examples:
            place = self._where.get(self.key_of(example))
            if place is None:
                return None
            part, row = place
            found.append(part.numbers(row))
        if not found:
            return torch.zeros(0)
        if getattr(examples[0], "packed", False):
            return torch.cat([part for parts in found for part in parts])
        return torch.cat([parts[side] for side in range(len(found[0])) for parts in found])

    def attach(self, collate: Collate) -> Collate:
        """``collate`` with each batch's ``reference_logps`` filled in.

        The returned function raises CheckpointError where an example has no entry: it was changed after
        ``fill``.
        """
        return _Attached(self, collate)

    def read(self) -> None:
        """Open the parts that came since the last look."""
        for path in sorted(self.folder.glob(PATTERN)):
            if path.name not in self._parts:
                part = self._parts[path.name] = Part(path)
                self._where.update((key, (part, row)) for row, key in enumerate(part.keys))


class _Attached:
    """Builds batches with their reference's log-probs."""

    fills_reference = True
    """The loader's idle batches ask for it."""

    def __init__(self, cache: ReferenceCache, collate: Collate) -> None:
        self._cache, self._collate = cache, collate

    def __call__(self, examples: Sequence[Any]) -> Batch:
        values = self._cache.lookup(examples)
        if values is None:
            raise CheckpointError(
                "CACHE-MISS",
                f"no cached log-probs for one of {', '.join(example.id for example in examples)}",
                mend="fill the cache with the examples that are trained on",
                file=self._cache.folder,
            )
        return replace(self._collate(examples), reference_logps=values)
