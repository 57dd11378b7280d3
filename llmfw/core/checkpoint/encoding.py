"""Any checkpoint dictionary as json plus named tensors, and back, without loss and without pickle.

Plain json holds None, bool, int, finite float, str, list, and dict with str keys. The rest is an object with
one key that begins with ``$``: ``$tensor`` "file/name", ``$tuple``, ``$dict`` and ``$ordered`` (pairs),
``$set``, ``$frozenset``, ``$bytes`` (base64), ``$float`` (nan, inf, -inf). Everything else is refused, and
its place is named.
"""

from __future__ import annotations

import base64
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from llmfw.core.errors import CheckpointError, PluginError

TensorFiles = dict[str, dict[str, Tensor]]
"""File stem -> tensor name -> tensor on the CPU."""

FILE_OF = {"state_dict": "weights", "optimizer_states": "optimizer"}
"""First key of a tensor's place -> the stem of its safetensors file; ``state`` for all others."""


def encode(checkpoint: Mapping[str, Any]) -> tuple[Any, TensorFiles]:
    """The json tree and the tensors of a checkpoint dictionary; weights keep their own names.

    Raises:
        PluginError: STATE-TYPE, where a value is neither json-like nor a tensor.
    """
    encoder = _Encoder()
    try:
        tree = encoder.value(dict(checkpoint), ())
    except RecursionError:
        raise PluginError(
            "STATE-TYPE",
            "the state refers to itself or is nested too deep",
            mend="keep a callback's state flat",
        ) from None
    return tree, encoder.files


class _Encoder:
    def __init__(self) -> None:
        self.files: TensorFiles = {}
        self._storages: set[int] = set()

    def value(self, value: Any, place: tuple[str, ...]) -> Any:
        kind = type(value)
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:
            return value if math.isfinite(value) else {"$float": repr(value)}
        if kind is list:
            return [self.value(item, (*place, str(i))) for i, item in enumerate(value)]
        if kind is tuple:
            return {"$tuple": [self.value(item, (*place, str(i))) for i, item in enumerate(value)]}
        if kind is dict:
            if all(type(key) is str and not key.startswith("$") for key in value):
                return {key: self.value(item, (*place, key)) for key, item in value.items()}
            return {"$dict": self._pairs(value, place)}
        if kind is OrderedDict:
            return {"$ordered": self._pairs(value, place)}
        if kind in (set, frozenset):
            members = [self.value(item, place) for item in sorted(value, key=repr)]
            return {"$set" if kind is set else "$frozenset": members}
        if kind is bytes:
            return {"$bytes": base64.b64encode(value).decode("ascii")}
        if kind in (Tensor, torch.nn.Parameter) and value.layout is torch.strided and not value.is_quantized:
            return {"$tensor": self._tensor(value, place)}
        raise PluginError(
            "STATE-TYPE",
            f"a checkpoint can't hold {kind.__module__}.{kind.__qualname__}",
            mend="keep state as numbers, strings, lists, dicts or tensors (.item() and .tolist() make them)",
            key=".".join(place),
        )

    def _pairs(self, value: Mapping[Any, Any], place: tuple[str, ...]) -> list[list[Any]]:
        return [[self.value(key, place), self.value(item, (*place, str(key)))] for key, item in value.items()]

    def _tensor(self, tensor: Tensor, place: tuple[str, ...]) -> str:
        stem = FILE_OF.get(place[0], "state")
        names = self.files.setdefault(stem, {})
        name = ".".join(place[1:] if stem == "weights" else place)
        while name in names:
            name += "'"
        data = tensor.detach().cpu().contiguous()
        storage = data.untyped_storage().data_ptr()
        if storage in self._storages:  # safetensors refuses two names for one memory
            data = data.clone()
        self._storages.add(data.untyped_storage().data_ptr())
        names[name] = data
        return f"{stem}/{name}"


def decode(tree: Any, tensor: Callable[[str, str], Tensor]) -> Any:
    """The checkpoint dictionary; ``tensor(stem, name)`` looks a tensor up.

    Raises:
        CheckpointError: CHECKPOINT-FORMAT, where the json isn't what ``encode`` writes.
    """
    if isinstance(tree, list):
        return [decode(item, tensor) for item in tree]
    if not isinstance(tree, dict):
        return tree
    tag = next(iter(tree), "")
    if not tag.startswith("$"):
        return {key: decode(item, tensor) for key, item in tree.items()}
    body = tree[tag]
    try:
        if len(tree) != 1:
            raise KeyError(tag)
        return _DECODERS[tag](body, tensor)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise CheckpointError(
            "CHECKPOINT-FORMAT",
            f"unknown or broken element {tag!r} in its state",
            mend="use the llmfw that wrote it",
        ) from None


def _pairs(body: Any, tensor: Callable[[str, str], Tensor]) -> list[tuple[Any, Any]]:
    return [(decode(key, tensor), decode(item, tensor)) for key, item in body]


def _float(body: Any, _: Any) -> float:
    if body not in ("nan", "inf", "-inf"):
        raise ValueError(body)
    return float(body)


_DECODERS: dict[str, Callable[[Any, Callable[[str, str], Tensor]], Any]] = {
    "$tensor": lambda body, tensor: tensor(*body.split("/", 1)),
    "$tuple": lambda body, tensor: tuple(decode(item, tensor) for item in body),
    "$dict": lambda body, tensor: dict(_pairs(body, tensor)),
    "$ordered": lambda body, tensor: OrderedDict(_pairs(body, tensor)),
    "$set": lambda body, tensor: {decode(item, tensor) for item in body},
    "$frozenset": lambda body, tensor: frozenset(decode(item, tensor) for item in body),
    "$bytes": lambda body, _: base64.b64decode(body, validate=True),
    "$float": _float,
}
