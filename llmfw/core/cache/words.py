"""What a cached thing belongs to, in a few words; read from small files and headers alone."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

KINDS: Mapping[str, str] = {
    "data": "data files of packages",
    "hashes": "hashes of model files",
    "models": "converted models",
    "recipes": "auxiliary models trained by recipes",
    "reference": "log-probs of reference models",
    "rows": "rows made from data",
    "tokenizers": "trained tokenizers",
    "tokens": "tokenised rows",
    "verdicts": "verdicts on answers",
}
"""Kinds of cached things; plugins may bring others."""
_MOST_HEADER = 100_000_000
"""Bytes: the format's own limit of a safetensors header."""
Words = tuple[str, int | None]


def describe(kind: str, paths: Sequence[Path]) -> Words:
    """(what it belongs to, how many samples, sequences or files); of what can't be read it says so."""
    teller = _TELLERS.get(kind)
    if len(paths) == 1 and paths[0].is_symlink():
        return "a link", None
    if teller is None:
        return KINDS.get(kind, ""), None
    try:
        return teller(paths)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, struct.error):
        return "unreadable", None


def header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file.

    Raises:
        ValueError, OSError: it isn't one.
    """
    with path.open("rb") as handle:
        (length,) = struct.unpack("<Q", handle.read(8))
        if length > _MOST_HEADER:
            raise ValueError("no safetensors file")
        return dict(json.loads(handle.read(length)))


def parts_of(folder: Path) -> tuple[int, int, int]:
    """(files, samples, trained tokens) of a cache of reference log-probs, from its headers."""
    parts = sorted(folder.glob("part-*.safetensors"))
    told = [header(path)["__metadata__"] for path in parts]
    return len(parts), sum(int(one["entries"]) for one in told), sum(int(one["tokens"]) for one in told)


def _reference(paths: Sequence[Path]) -> Words:
    told = _json(paths[0] / "key.json")
    _, samples, tokens = parts_of(paths[0])
    key, model = told["key"], told["about"].get("model", "a model")
    arithmetic = ", ".join(dict.fromkeys((str(key["dtype"]), str(key["precision"]))))
    return f"{model} ({arithmetic}): {samples} samples, {tokens:,} trained tokens", samples


def _tokens(paths: Sequence[Path]) -> Words:
    shapes = header(paths[0] / "tokens.safetensors")
    (count,), (sequences,) = shapes["ids"]["shape"], shapes["length"]["shape"]
    return f"{sequences} sequences, {count:,} tokens", int(sequences)


def _model(paths: Sequence[Path]) -> Words:
    note, config = paths[0] / "gguf.json", _json(paths[0] / "config.json")
    made = f"from {_json(note)['file']}" if note.is_file() else paths[0].name.rsplit("-", 2)[0]
    return f"{config.get('model_type', 'model')}, {made}", None


def _recipe(paths: Sequence[Path]) -> Words:
    told = _json(paths[0] / "run.json")
    return f"run {told.get('name', paths[0].name)}, {str(told.get('status', 'unfinished')).lower()}", None


def _tokenizer(paths: Sequence[Path]) -> Words:
    kind, size, _ = paths[0].name.rsplit("-", 2)
    return f"{kind}, {int(size):,} tokens", int(size)


def _data(paths: Sequence[Path]) -> Words:
    return paths[0].name.rsplit("-", 1)[0], None


def _hashes(paths: Sequence[Path]) -> Words:
    return f"{len(paths)} hashes of model files", len(paths)


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


_TELLERS: Mapping[str, Callable[[Sequence[Path]], Words]] = {
    "data": _data,
    "hashes": _hashes,
    "models": _model,
    "recipes": _recipe,
    "reference": _reference,
    "tokenizers": _tokenizer,
    "tokens": _tokens,
}
