"""Tokenised rows on disk, so that a run with the same data, tokenizer and settings doesn't tokenise again.

A folder ``tokens/KEY`` holds ``tokens.safetensors`` (flat ids and flags, lengths) and ``examples.json`` (ids,
kinds, extras, counts). The key lists everything that the content depends on; a folder that can't be read is
made anew.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from llmfw.core.cache import cache_dir, locked_build
from llmfw.core.data.encode import EncodeCounts, Encoder
from llmfw.core.data.examples import Example, Extra, TokenSequence
from llmfw.core.data.formats import PLACE
from llmfw.core.records import Row

VERSION = 1
"""Raised when the same rows may become other tokens, or the files' form changes."""


def cache_key(encoder: Encoder, form: str, rows: Sequence[Row]) -> str:
    """32 hex digits over rows, form, tokenizer and template, length limit, policy, and the code's version."""
    digest = hashlib.sha256()
    settings = [VERSION, form, encoder.text.fingerprint, encoder.max_length, encoder.too_long]
    if encoder.sides is not None:
        settings += [encoder.sides.start, encoder.text.marks(), encoder.text.marks(target=True)]
    digest.update(json.dumps(settings).encode())
    for row in rows:
        said = {key: value for key, value in row.items() if key != PLACE}
        digest.update(json.dumps(said, sort_keys=True, default=str).encode())
        digest.update(b"\n")
    return digest.hexdigest()[:32]


def cached(
    encoder: Encoder, form: str, rows: Sequence[Row], encode: Callable[[], list[Example]]
) -> list[Example]:
    """``encode()``, or what it gave before for the same key; the encoder's counts are restored too.

    Rows that are refused in ``encode`` aren't kept: such data is tokenised every time, and said to be bad
    every time.
    """
    if not rows:
        return []
    target = cache_dir("tokens") / cache_key(encoder, form, rows)
    made: list[list[Example]] = []
    before = encoder.counts

    def build(folder: Path) -> None:
        encoder.counts = EncodeCounts()
        made.append(encode())
        _write(folder, made[0], encoder.counts)

    try:
        locked_build(target, build)
        if not made:
            try:
                examples, encoder.counts = _read(target)
            except (OSError, ValueError, KeyError, TypeError, IndexError):
                shutil.rmtree(target, ignore_errors=True)  # damaged: make it anew
                locked_build(target, build)
            else:
                return examples
        return made[0] if made else _read(target)[0]
    finally:
        if encoder.counts is not before:
            encoder.counts = summed(before, encoder.counts)


def _write(folder: Path, examples: Sequence[Example], counts: EncodeCounts) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    sequences = [sequence for example in examples for sequence in example.sequences]
    arrays = {
        "ids": np.array([token for sequence in sequences for token in sequence.ids], dtype=np.int32),
        "trained": np.array([flag for sequence in sequences for flag in sequence.trained], dtype=np.bool_),
        "length": np.array([len(sequence) for sequence in sequences], dtype=np.int64),
    }
    if any(sequence.encoder for sequence in sequences):
        encoder = [token for sequence in sequences for token in sequence.encoder]
        arrays["encoder"] = np.array(encoder, dtype=np.int32)
        arrays["encoder_length"] = np.array([len(one.encoder) for one in sequences], dtype=np.int64)
    said = {
        "examples": [
            [example.id, example.kind, len(example.sequences), dict(example.extra)] for example in examples
        ],
        "counts": vars(counts) | {"notes": dict(counts.notes)},
        "sha256": _digest(arrays),
    }
    save_file(arrays, str(folder / "tokens.safetensors"))
    (folder / "examples.json").write_text(json.dumps(said), encoding="utf-8")


def _read(folder: Path) -> tuple[list[Example], EncodeCounts]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    said: dict[str, Any] = json.loads((folder / "examples.json").read_text(encoding="utf-8"))
    try:
        arrays = load_file(str(folder / "tokens.safetensors"))
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    if _digest(arrays) != said["sha256"]:
        raise ValueError("the tokens aren't those that were written")
    ids, flags = arrays["ids"].tolist(), arrays["trained"].tolist()
    lengths = arrays["length"].tolist()
    encoder = arrays["encoder"].tolist() if "encoder" in arrays else []
    read = arrays["encoder_length"].tolist() if "encoder" in arrays else [0] * len(lengths)
    sequences: list[TokenSequence] = []
    start = first = 0
    for length, width in zip(lengths, read, strict=True):
        sequences.append(
            TokenSequence(
                tuple(ids[start : start + length]),
                tuple(flags[start : start + length]),
                tuple(encoder[first : first + width]),
            )
        )
        start, first = start + length, first + width
    examples: list[Example] = []
    at = 0
    for name, kind, count, extra in said["examples"]:
        examples.append(
            Example(id=name, kind=kind, sequences=tuple(sequences[at : at + count]), extra=_extra(extra))
        )
        at += count
    counts = said["counts"]
    return examples, EncodeCounts(**counts | {"notes": Counter(counts["notes"])})


def _extra(said: dict[str, Any]) -> dict[str, Extra]:
    return {name: _tuples(value) for name, value in said.items()}


def _tuples(value: Any) -> Any:
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value


def _digest(arrays: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + arrays[name].tobytes())
    return digest.hexdigest()


def summed(one: EncodeCounts, other: EncodeCounts) -> EncodeCounts:
    """Both counts together."""
    return EncodeCounts(
        too_long=one.too_long + other.too_long,
        cut=one.cut + other.cut,
        pairs_cut_equal=one.pairs_cut_equal + other.pairs_cut_equal,
        open_ends=one.open_ends + other.open_ends,
        notes=one.notes + other.notes,
    )
