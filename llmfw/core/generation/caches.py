"""Key-value caches: building one, switching an attention function on for a while, reading a prompt in.

Shapes: B rows, T positions, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

from llmfw.core.errors import ConflictError, PluginError
from llmfw.core.models.spans import configs_of
from llmfw.core.records import CacheFactory

FULL_CACHE = CacheFactory(name="full", build=lambda config: DynamicCache(config=config), batched=True)
"""transformers' own cache: every key and value is kept."""


def base_model(module: nn.Module) -> nn.Module:
    """The transformers model inside a PEFT model, or the module itself."""
    get = getattr(module, "get_base_model", None)
    inner: nn.Module = get() if callable(get) else module
    return inner


def context_length(module: nn.Module) -> int | None:
    """Positions that a model was made for; None where it has no limit (recurrent models)."""
    config: Any = base_model(module).config
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(limit) if limit else None


@dataclass(frozen=True, kw_only=True)
class ForwardNames:
    """Which arguments a model's forward knows; recurrent ones have ``cache_params`` and no positions."""

    cache: str
    positions: bool
    last_only: bool

    @property
    def padding(self) -> bool:
        """Whether rows may be padded on the left; a recurrent state would read the padding."""
        return self.positions and self.cache == "past_key_values"


def forward_names(module: nn.Module) -> ForwardNames:
    """Reads the signatures of the model's own forward and of those that it extends."""
    model = base_model(module)
    # a surgery's forward(*args, **kwargs) hides the names of the one that it hands them to
    forwards = [
        model.forward,
        *(parent.forward for parent in type(model).__mro__ if hasattr(parent, "forward")),
    ]
    names = {name for forward in forwards for name in inspect.signature(forward).parameters}
    return ForwardNames(
        cache="cache_params" if "cache_params" in names else "past_key_values",
        positions="position_ids" in names,
        last_only="logits_to_keep" in names,
    )


@contextmanager
def attention_of(module: nn.Module, cache: CacheFactory) -> Iterator[None]:
    """Registers the cache's attention function and sets it on the model's configs; undone also on error.

    Errors:
        ConflictError: another function stands under this name.
        PluginError: the model's code doesn't look attention functions up.
    """
    if cache.attention is None:
        yield
        return
    name, function = cache.attention
    registry = AttentionInterface._global_mapping
    standing = registry.get(name)
    if name == "eager" or (standing is not None and standing is not function):
        raise ConflictError(
            "ATTENTION-NAME",
            f"cache {cache.name} brings an attention function called {name}, a name that is taken",
            mend="give the function a name of its own, e.g. that of the plugin",
        )
    configs = configs_of(base_model(module))
    for submodule in base_model(module).modules():
        if isinstance(submodule, PreTrainedModel) and not submodule._can_set_attn_implementation():
            raise PluginError(
                "ATTENTION-MODEL",
                f"cache {cache.name} brings an attention function, that {type(submodule).__name__} can't use",
                mend="take a model that uses transformers' AttentionInterface, or leave the cache out",
            )
    before = [config._attn_implementation_internal for config in configs]
    try:
        ALL_ATTENTION_FUNCTIONS.register(name, function)
        for config in configs:
            config._attn_implementation_internal = name
        yield
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation_internal = implementation
        if standing is None:
            registry.pop(name, None)


def prefill(
    module: nn.Module,
    past: Any,
    input_ids: Tensor,
    *,
    chunk: int | None = None,
    mask: Tensor | None = None,
    seen: int = 0,
    extra: dict[str, Tensor] | None = None,
    every_position: bool = False,
) -> Tensor:
    """Reads tokens into a cache, ``chunk`` positions per forward pass (None: all at once).

    Args:
        past: the cache; it may already hold ``seen`` positions.
        input_ids: [B, T] int64, padded on the left.
        mask: [B, seen + T] bool, True where a token stands; None: there's no padding.
        extra: further arguments of the model's forward in the first call.
        every_position: return the logits of all positions instead of the last.

    Returns:
        [B, V] logits after the last position, or [B, T, V].
    """
    names = forward_names(module)
    length = input_ids.shape[1]
    positions = position_ids(mask, seen, length, input_ids.device)
    step = length if chunk is None else chunk
    if step < 1:
        raise PluginError(
            "PREFILL-CHUNK",
            f"prefill_chunk is {chunk}",
            mend="give 1 or more tokens, or None",
            key="prefill_chunk",
        )
    parts: list[Tensor] = []
    for start in range(0, length, step):
        stop = min(start + step, length)
        arguments: dict[str, Any] = {
            names.cache: past,
            "use_cache": True,
            **(extra or {} if start == 0 else {}),
        }
        if names.positions:
            arguments["position_ids"] = positions[:, start:stop]
        if mask is not None:
            arguments["attention_mask"] = mask[:, : seen + stop]
        if names.last_only and not every_position:
            arguments["logits_to_keep"] = 1
        logits: Tensor = module(input_ids=input_ids[:, start:stop], **arguments).logits
        parts = [*parts, logits] if every_position else [logits]
    return torch.cat(parts, dim=1) if every_position else parts[-1][:, -1]


def position_ids(mask: Tensor | None, seen: int, length: int, device: torch.device) -> Tensor:
    """[B or 1, length] int64 positions of the tokens after the first ``seen``; padding stands at 0."""
    if mask is None:
        return torch.arange(seen, seen + length, device=device)[None]
    return (mask.long().cumsum(-1) - 1).clamp(min=0)[:, seen : seen + length]
