"""The frozen base in 4 or 8 bits, through bitsandbytes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from llmfw.core.errors import ResourceError, UsageError
from llmfw.core.models.names import plain_name
from llmfw.core.models.talk import quiet
from llmfw.core.models.targets import is_linear
from llmfw.core.schema import AdapterConfig, ModelConfig


@dataclass(frozen=True, kw_only=True)
class Quantised:
    """What ``quantise`` did. Sizes are of all of the model's weights, in bytes."""

    kind: str
    layers: int
    before: int
    after: int
    experts: int
    """Weights of experts, which aren't linear layers and stay as they are."""

    def __str__(self) -> str:
        text = (
            f"quantised {self.layers} linear layers to {self.kind}: weights take {self.after / 1e6:.1f} MB "
            f"instead of {self.before / 1e6:.1f} MB"
        )
        return f"{text}; {self.experts} weights of experts stay as they are" if self.experts else text


def require_bitsandbytes(key: str) -> None:
    """Refuse to go on without the package.

    Raises:
        ResourceError: BITSANDBYTES, naming it.
    """
    if find_spec("bitsandbytes") is None:
        raise ResourceError(
            "BITSANDBYTES",
            "the package bitsandbytes isn't installed",
            mend="pip install bitsandbytes, or set another value",
            key=key,
        )


def check_frozen(model: ModelConfig, adapter: AdapterConfig) -> None:
    """Refuse to train a quantised base itself: its weights have no gradients.

    Raises:
        UsageError: QUANTISE.
    """
    if model.quantization != "none" and adapter.kind == "none":
        raise UsageError(
            "QUANTISE",
            f"a base in {model.quantization} is frozen, so it can't be trained in full",
            mend="set adapter.kind=lora, or model.quantization=none",
            key="model.quantization",
        )


def quantise(model: Any, kind: str, keep: Collection[str] = ()) -> Quantised:
    """Replace a transformers model's linear layers by frozen ones in 4 bits (``nf4``) or 8 bits (``int8``).

    The head, embeddings and norms keep their dtype, as do layers that hold a parameter named in ``keep``
    (plain names), and those that the architecture wants in float32. Layer by layer, on the CPU, so the
    result depends on the weights and their dtype alone.

    Raises:
        ResourceError: bitsandbytes is absent.
        UsageError: QUANTISE, where the model has no such layer.
    """
    require_bitsandbytes("model.quantization")
    with quiet():
        from llmfw.core.models.bnb_layers import int8_layer, nf4_layer

    make: Any = nf4_layer if kind == "nf4" else int8_layer
    before, kept = weight_bytes(model), set(keep)
    done = 0
    for name in _quantisable(model):
        part = model.get_submodule(name)
        if any(plain_name(f"{name}.{own}") in kept for own, _ in part.named_parameters(recurse=False)):
            continue
        weight = part.weight if isinstance(part, nn.Linear) else part.weight.T
        parent, _, last = name.rpartition(".")
        with torch.no_grad():
            fresh = make(weight, part.bias)
        setattr(model.get_submodule(parent), last, fresh.train(part.training))
        done += 1
    if not done:
        raise UsageError(
            "QUANTISE",
            "the model has no linear layer that can be quantised",
            mend="set model.quantization=none",
            key="model.quantization",
        )
    setattr(model, "is_loaded_in_4bit" if kind == "nf4" else "is_loaded_in_8bit", True)  # PEFT looks here
    experts = sum(1 for name, value in model.named_parameters() if value.dim() == 3 and "expert" in name)
    return Quantised(kind=kind, layers=done, before=before, after=weight_bytes(model), experts=experts)


def weight_bytes(model: nn.Module) -> int:
    """Bytes of a model's parameters, tied ones once, and of what quantised ones need beside them."""
    seen = {value.data_ptr(): value for value in model.state_dict().values() if value.numel()}
    return sum(value.nbytes for value in seen.values())


def _quantisable(model: Any) -> list[str]:
    head = model.get_output_embeddings()
    wide = set(getattr(model, "_keep_in_fp32_modules", None) or ())
    wide |= set(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
    shared: dict[int, int] = {}
    for _, parameter in model.named_parameters(remove_duplicate=False):
        shared[id(parameter)] = shared.get(id(parameter), 0) + 1
    return [
        name
        for name, part in model.named_modules()
        if is_linear(part)
        and part is not head
        and not wide & set(name.split("."))
        and shared[id(part.weight)] == 1
    ]
