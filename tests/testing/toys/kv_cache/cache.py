"""The cache. Shapes: B rows, H heads, T entries, D width."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from .functional import kept


class Layer(DynamicLayer):
    """Entries that can be dropped; tells the true number of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> Any:
        """Append entries [B, H, T, D]."""
        self.seen += key_states.shape[-2]
        return super().update(key_states, value_states)

    def get_seq_length(self) -> int:
        """Tokens that were read."""
        return self.seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Entries that a query sees, and how many were dropped before them."""
        stored = self.keys.shape[-2] if self.is_initialized else 0
        return stored + query_length, self.seen - stored


def build(model_config: Any) -> Cache:
    """An empty cache."""
    return Cache(layers=[Layer() for _ in range(model_config.num_hidden_layers)])


def evict(cache: Cache, *, budget: float) -> None:
    """Keep ``budget`` of each layer's entries."""
    for layer in cache.layers:
        chosen = torch.tensor(kept(layer.keys.shape[-2], budget=budget))
        layer.keys, layer.values = layer.keys[:, :, chosen], layer.values[:, :, chosen]


def attention(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **kwargs: Any) -> Any:
    """The standard one, under a name of its own: for such a name there's no mask, so that of a prompt's later
    chunks is made here.
    """
    new, held = query.shape[2], key.shape[2]
    if 1 < new < held:
        attention_mask = torch.ones(new, held, dtype=torch.bool).tril(held - new)[None, None]
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
