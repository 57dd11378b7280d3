"""What a reference's log-probs depend on: the model (a cache's key) and the tokens (an entry's)."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, Protocol

from llmfw.core.models.build import BuiltModel

FORMAT = 2
"""Raised when the same model and tokens may give other numbers, or the files' form changes."""
_NAMES = ("_name_or_path", "transformers_version", "torch_dtype", "dtype")
"""Keys of a transformers config that decide no number, or whose value stands in the key anyway."""


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


def reference_key(
    built: BuiltModel, *, precision: str = "32-true", settings: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What a reference's log-probs depend on beside the tokens; json, and what ``key.json`` says.

    The reference is the model before training: weights count by their hash and not by their place, so a copy
    elsewhere means the same cache; a saved adapter under it by the base's hash and its own. The device, the
    layout and the size of batches count for nothing: they change rounding only.

    Args:
        precision: of the forward passes, as ``trainer.precision`` says it.
        settings: plugins' settings by name; those of plugins with a surgery count.
    """
    config = {name: value for name, value in built.base_config.items() if name not in _NAMES}
    told = settings or {}
    return {
        "format": FORMAT,
        "base_hash": built.base_hash,
        "architecture": _digest(config),
        "dtype": built.model.dtype,
        "quantization": built.model.quantization,
        "precision": precision,
        "attention": built.model.attention,
        "surgeries": [
            [
                one.plugin,
                one.surgery.name,
                one.seed,
                _digest(repr(one.report.changed)),
                _digest(told.get(one.plugin)),
            ]
            for one in built.reports
        ],
        "batch_keys": list(built.batch_keys),
        "torch": version("torch").partition("+")[0],
        "transformers": version("transformers"),
    }


def example_key(example: Sample, batch_keys: Sequence[str] = ()) -> bytes:
    """32 bytes: SHA-256 of an example's tokens, of which are trained, and of what the model's forward
    receives beside them.
    """
    digest = hashlib.sha256()
    for sequence in example.sequences:
        digest.update(array("q", sequence.ids).tobytes() + b"|" + bytes(map(bool, sequence.trained)) + b"|")
        if encoder := getattr(sequence, "encoder", ()):
            digest.update(b"encoder|" + array("q", encoder).tobytes() + b"|")
    digest.update(json.dumps([[key, example.extra.get(key)] for key in batch_keys], default=list).encode())
    return digest.digest()


def folder_of(key: Mapping[str, Any]) -> str:
    """The name of a key's folder: 24 hex digits."""
    return hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:24]


def _digest(value: Any) -> str:
    told = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(told.encode()).hexdigest()[:16]
