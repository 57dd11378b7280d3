"""The cache: transformers' own, whose layers forget."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from llmfw import LlmfwError

from .functional import kept


class SinkRecentLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    """One layer's keys and values: of the first tokens and of the most recent ones.

    A prompt is read in full; from ``forget`` on the surplus goes at each update. The queries of a call see
    all that was kept before and each other. Keys keep the positions that they were made with.
    """

    def __init__(self, *, sinks: int, recent: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sinks, self.recent = sinks, recent
        self.seen, self.forgets = 0, False

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Add the new ones, and return what the present queries attend to."""
        keys, values = super().update(key_states, value_states, *args, **kwargs)
        self.seen += key_states.shape[-2]
        if self.forgets:
            self.forget()
        return keys, values

    def forget(self) -> None:
        """Forget the surplus, now and after each further update."""
        self.forgets = True
        if self.keys is not None and self.values is not None:
            self.keys = kept(self.keys, sinks=self.sinks, recent=self.recent)
            self.values = kept(self.values, sinks=self.sinks, recent=self.recent)

    @property
    def held(self) -> int:
        """Positions that are kept."""
        return 0 if self.keys is None else int(self.keys.shape[-2])

    def get_seq_length(self) -> int:
        """Positions that were seen: the next token stands behind all of them."""
        return self.seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Keys that a call attends to, and the position that the mask gives the first of them."""
        return self.held + query_length, self.seen - self.held

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.seen, self.forgets = 0, False


def after_prefill(cache: Any) -> None:
    """A prompt was read in full: from now on every layer holds at most ``sinks + recent`` positions."""
    for layer in cache.layers:
        layer.forget()


def build(model_config: Any, *, sinks: int, recent: int) -> Cache:
    """An empty cache of such layers.

    Raises:
        LlmfwError: a model with layers that keep something else than keys and values of all positions.
    """
    config = model_config.get_text_config()
    other = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    if other:
        raise LlmfwError(
            "SINK-RECENT-MODEL",
            f"the model has layers of type {', '.join(sorted(other))}",
            mend="use a model whose layers all have full attention, or leave the plugin out",
        )
    cache = DynamicCache()
    cache.layers = [SinkRecentLayer(sinks=sinks, recent=recent) for _ in range(config.num_hidden_layers)]
    return cache
