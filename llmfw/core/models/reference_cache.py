"""Reference log-probs on disk: one float32 per trained token, computed once per example and reference model.

A cache serves every loss and every alpha and beta of a sweep: it's keyed by what decides the numbers,
which is the
reference's weights and arithmetic (the folder, spelt out in its ``key.json``) and the example's own
tokens (the entry).
"""

from __future__ import annotations

import hashlib
import json
import logging
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from llmfw.core.batch import Batch
from llmfw.core.cache import cache_dir
from llmfw.core.errors import CheckpointError
from llmfw.core.models.build import BuiltModel
from llmfw.core.models.source import read_json

_log = logging.getLogger(__name__)
FORMAT = 1
_FLUSH = 256
"""Examples per file: what a kill can cost."""


class Tokens(Protocol):
    """Token ids of a row, and for each whether it is trained."""

    @property
    def ids(self) -> Sequence[int]: ...
    @property
    def trained(self) -> Sequence[bool]: ...


class Sample(Protocol):
    """An example of ``llmfw.core.data``, as far as it matters here."""

    @property
    def id(self) -> str: ...
    @property
    def sequences(self) -> Sequence[Tokens]: ...
    @property
    def extra(self) -> Mapping[str, Any]: ...


def reference_key(built: BuiltModel, *, precision: str = "32-true") -> dict[str, Any]:
    """What a reference's log-probs depend on beside the tokens; json, and what ``key.json`` says.

    The reference is the model before training, so surgeries count by name, plugin and seed, and a saved
    adapter under
    it by the base's hash.
    """
    return {
        "format": FORMAT,
        "base_hash": built.base_hash,
        "model": built.model.name,
        "dtype": built.model.dtype,
        "quantization": built.model.quantization,
        "precision": precision,
        "attention": built.model.attention,
        "surgeries": [
            [one.plugin, one.surgery.name, one.seed, repr(one.report.changed)] for one in built.reports
        ],
        "batch_keys": list(built.batch_keys),
        "torch": str(torch.__version__),
    }


def example_key(example: Sample, batch_keys: Sequence[str] = ()) -> str:
    """SHA-256 of an example's tokens, of which are trained, and of what the model's forward receives
    beside them.
    """
    digest = hashlib.sha256()
    for sequence in example.sequences:
        digest.update(array("q", sequence.ids).tobytes() + b"|" + bytes(map(bool, sequence.trained)) + b"|")
        if encoder := getattr(sequence, "encoder", ()):
            digest.update(b"encoder|" + array("q", encoder).tobytes() + b"|")
    digest.update(json.dumps([[key, example.extra.get(key)] for key in batch_keys], default=list).encode())
    return digest.hexdigest()


class ReferenceCache:
    """Log-probs of one reference model. Files are memory-mapped, written whole or not at all, by one
    process at a time.

    Args:
        key: from ``reference_key``.
        folder: where caches live; None: the user's cache.

    Raises:
        CheckpointError: the folder holds another key's numbers.
    """

    def __init__(self, key: Mapping[str, Any], folder: Path | None = None) -> None:
        self.key = json.loads(json.dumps(dict(key)))
        text = json.dumps(self.key, sort_keys=True)
        self.folder = (folder or cache_dir("reference")) / hashlib.sha256(text.encode()).hexdigest()[:24]
        self.folder.mkdir(parents=True, exist_ok=True)
        self._batch_keys: tuple[str, ...] = tuple(self.key.get("batch_keys", ()))
        self._files: dict[str, Tensor] = {}
        self._where: dict[str, tuple[str, int, tuple[int, ...]]] = {}
        note = self.folder / "key.json"
        if note.is_file() and read_json(note) != self.key:
            raise CheckpointError(
                "CACHE-KEY",
                "the cache belongs to another reference",
                mend="delete the folder",
                file=self.folder,
            )
        if not note.is_file():
            _replace(note, json.dumps(self.key, indent=1, sort_keys=True).encode())
        self._read()

    def __len__(self) -> int:
        return len(self._where)

    def missing(self, examples: Iterable[Sample]) -> list[Any]:
        """The examples that have no entry yet, each content once, in order."""
        found: dict[str, Any] = {}
        for example in examples:
            key = example_key(example, self._batch_keys)
            if key not in self._where:
                found.setdefault(key, example)
        return list(found.values())

    def fill(
        self,
        examples: Sequence[Any],
        collate: Callable[[Sequence[Any]], Batch],
        logps: Callable[[Batch], Tensor],
        *,
        batch_size: int = 4,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Compute what is missing, longest examples first; returns how many were computed.

        A kill costs at most 256 examples. Another process that fills the same cache is waited for.

        Args:
            collate: examples -> batch whose segments are ordered by sequence, then example (as
                ``llmfw.core.data`` does).
            logps: the reference's, [N]; batches are moved to its device by the caller's ``collate``.
            progress: called with (done, of) after each batch.
        """
        if not self.missing(examples):
            return 0
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _log.warning("another process fills %s; waiting for it", self.folder)
            lock.acquire()
        try:
            self._read()
            todo = sorted(
                self.missing(examples), key=lambda sample: -max(len(part.ids) for part in sample.sequences)
            )
            fresh: list[tuple[str, list[Tensor]]] = []
            for start in range(0, len(todo), batch_size):
                members = todo[start : start + batch_size]
                fresh += self._computed(members, collate(members), logps)
                if len(fresh) >= _FLUSH:
                    self._write(fresh)
                    fresh = []
                if progress is not None:
                    progress(min(start + batch_size, len(todo)), len(todo))
            self._write(fresh)
            return len(todo)
        finally:
            lock.release()

    def lookup(self, examples: Sequence[Sample]) -> Tensor | None:
        """[N] log-probs in the order in which ``collate`` lays the trained tokens of ``examples``; None
        if one is absent.
        """
        found: list[list[Tensor]] = []
        for example in examples:
            place = self._where.get(example_key(example, self._batch_keys))
            if place is None:
                return None
            name, start, lengths = place
            flat = self._files[name][start : start + sum(lengths)]
            found.append(list(torch.split(flat, list(lengths))))
        if not found:
            return torch.zeros(0)
        packed = bool(getattr(examples[0], "packed", False))
        if packed:
            return torch.cat([part for parts in found for part in parts])
        return torch.cat([parts[side] for side in range(len(found[0])) for parts in found])

    def attach(self, collate: Callable[[Sequence[Any]], Batch]) -> Callable[[Sequence[Any]], Batch]:
        """``collate`` with each batch's ``reference_logps`` filled in.

        The returned function raises CheckpointError where an example has no entry: it was changed after
        ``fill``.
        """

        def attached(examples: Sequence[Any]) -> Batch:
            values = self.lookup(examples)
            if values is None:
                raise CheckpointError(
                    "CACHE-MISS",
                    f"no cached log-probs for one of {', '.join(example.id for example in examples)}",
                    mend="fill the cache with the examples that are trained on",
                    file=self.folder,
                )
            return replace(collate(examples), reference_logps=values)

        attached.fills_reference = True  # type: ignore[attr-defined]  # the loader's idle batches ask for it
        return attached

    def _computed(
        self, members: Sequence[Sample], batch: Batch, logps: Callable[[Batch], Tensor]
    ) -> list[tuple[str, list[Tensor]]]:
        values = logps(batch).detach().float().cpu()
        lengths = batch.length.tolist()
        parts = list(torch.split(values, lengths))
        owners: list[tuple[int, int]] = []
        if getattr(members[0], "packed", False):
            owners = [
                (row, side) for row, member in enumerate(members) for side in range(len(member.sequences))
            ]
        else:
            owners = [(row, side) for side in range(len(members[0].sequences)) for row in range(len(members))]
        if len(owners) != len(parts):
            raise ValueError(
                f"{len(parts)} segments for {len(owners)} sequences: collate's order isn't known here"
            )
        laid: list[list[Tensor]] = [[torch.empty(0)] * len(member.sequences) for member in members]
        for (row, side), part in zip(owners, parts, strict=True):
            laid[row][side] = part
        return [
            (example_key(member, self._batch_keys), row) for member, row in zip(members, laid, strict=True)
        ]

    def _write(self, fresh: Sequence[tuple[str, list[Tensor]]]) -> None:
        from safetensors.torch import save

        if not fresh:
            return
        flat = torch.cat([part for _, parts in fresh for part in parts])
        index = json.dumps([[key, [len(part) for part in parts]] for key, parts in fresh])
        number = len(list(self.folder.glob("part-*.safetensors")))
        _replace(
            self.folder / f"part-{number:06d}.safetensors", save({"logps": flat}, metadata={"index": index})
        )
        self._read()

    def _read(self) -> None:
        from safetensors import safe_open

        for path in sorted(self.folder.glob("part-*.safetensors")):
            if path.name in self._files:
                continue
            try:
                with safe_open(path, framework="pt") as handle:
                    index = json.loads((handle.metadata() or {})["index"])
                    flat = handle.get_tensor("logps")
                if sum(sum(lengths) for _, lengths in index) != len(flat):
                    raise ValueError("index and numbers differ")
            except Exception as error:  # safetensors has an error class of its own
                raise CheckpointError(
                    "CACHE-DAMAGED",
                    f"cached log-probs can't be read ({type(error).__name__}: {error})",
                    mend="delete the file: its numbers are computed again",
                    file=path,
                ) from error
            self._files[path.name] = flat
            start = 0
            for key, lengths in index:
                self._where[key] = (path.name, start, tuple(lengths))
                start += sum(lengths)


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole: beside its place, flushed, then renamed."""
    import os

    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with partial.open("wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
