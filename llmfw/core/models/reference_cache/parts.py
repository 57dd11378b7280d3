"""The files of a cache: written whole or not at all, named by their content, memory-mapped when read.

A part holds ``logps`` (float32, all entries end to end), ``keys`` ([E, 32] bytes), ``sequences`` ([E], how
many each entry has), ``lengths`` (trained tokens of each sequence, end to end) and ``crc`` ([E], CRC-32 of
each entry's numbers). Its metadata say how many entries and tokens there are, and the SHA-256 of the index.
"""

from __future__ import annotations

import hashlib
import zlib
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmfw.core.disk import write_whole
from llmfw.core.errors import CheckpointError

PATTERN = "part-*.safetensors"
_INDEX = ("keys", "sequences", "lengths", "crc")
Entry = tuple[bytes, list[Tensor]]
"""(key, log-probs of each sequence)."""


class Part:
    """One file, mapped: its index is read when it's opened, its numbers when they're looked up.

    Raises:
        CheckpointError: CACHE-DAMAGED, naming the file: here for the index, in ``numbers`` for an entry.
    """

    def __init__(self, path: Path) -> None:
        from safetensors import safe_open

        self.path = path
        try:
            with safe_open(path, framework="pt") as handle:
                metadata = handle.metadata() or {}
                index: dict[str, Tensor] = {name: handle.get_tensor(name) for name in _INDEX}
                self._flat: Tensor = handle.get_tensor("logps")
            if _digest(index) != metadata.get("index"):
                raise ValueError("its index isn't the one that was written")
            raw = index["keys"].numpy().tobytes()
            self.keys = [raw[at : at + 32] for at in range(0, len(raw), 32)]
            self._crc = array("q", index["crc"].tolist())
            self._lengths = array("q", index["lengths"].tolist())
            self._first = _sums(index["sequences"].tolist())
            self._start = _sums(self._lengths)
            if self._start[-1] != len(self._flat) or len(self._first) != len(self.keys) + 1:
                raise ValueError("index and numbers differ")
        except Exception as error:  # safetensors has an error class of its own
            raise self._damaged(f"{type(error).__name__}: {error}") from error
        self._checked = bytearray(len(self.keys))

    def numbers(self, row: int) -> list[Tensor]:
        """The log-probs of entry ``row``, sequence by sequence: views of the mapping."""
        first, after = self._first[row], self._first[row + 1]
        flat = self._flat[self._start[first] : self._start[after]]
        if not self._checked[row]:
            if _crc(flat) != self._crc[row]:
                raise self._damaged("its numbers aren't those that were written")
            self._checked[row] = 1
        return list(torch.split(flat, list(self._lengths[first:after])))

    def _damaged(self, why: str) -> CheckpointError:
        return CheckpointError(
            "CACHE-DAMAGED",
            f"cached log-probs can't be read ({why})",
            mend="delete the file: its numbers are computed again",
            file=self.path,
        )


def write_part(folder: Path, entries: Sequence[Entry], **about: str) -> Path:
    """Write entries as a new part; the same entries become the same file, whoever writes them.

    Args:
        about: further metadata.
    """
    from safetensors.torch import save

    lengths = [len(part) for _, parts in entries for part in parts]
    rows = [torch.cat(parts) if parts else torch.zeros(0) for _, parts in entries]
    index = {
        "keys": torch.frombuffer(bytearray(b"".join(key for key, _ in entries)), dtype=torch.uint8),
        "sequences": torch.tensor([len(parts) for _, parts in entries], dtype=torch.int32),
        "lengths": torch.tensor(lengths, dtype=torch.int64),
        "crc": torch.tensor([_crc(row) for row in rows], dtype=torch.int64),
    }
    flat = torch.cat(rows)
    told = {"entries": str(len(entries)), "tokens": str(len(flat)), "index": _digest(index), **about}
    # the index holds sums of the numbers; the file's own bytes aren't the same each time
    path = folder / f"part-{told['index'][:24]}.safetensors"
    write_whole(path, save({"logps": flat, **index}, metadata=told))
    return path


def _crc(numbers: Tensor) -> int:
    return zlib.crc32(memoryview(numbers.numpy()))  # type: ignore[arg-type]  # an array has the buffer protocol


def _sums(values: Sequence[int]) -> array[int]:
    found = array("q", [0])
    for value in values:
        found.append(found[-1] + value)
    return found


def _digest(index: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in _INDEX:
        digest.update(name.encode() + index[name].numpy().tobytes())
    return digest.hexdigest()
