"""The encoder's side of a batch of prompts: read once, attended to by every step of the decoder.

Shapes: B rows, E different prompts, Te positions of the longest prompt, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache

from llmfw.core.errors import ConflictError
from llmfw.core.generation.caches import FULL_CACHE, base_model
from llmfw.core.records import CacheFactory, Decoder


class EncoderSide:
    """What the encoder made of a batch's prompts, one row an answer; a prompt with several answers is read
    once.
    """

    def __init__(self, module: nn.Module, prompts: Sequence[Sequence[int]], pad: int) -> None:
        device = next(module.parameters()).device
        texts = [tuple(prompt) for prompt in prompts]
        place = {text: index for index, text in enumerate(dict.fromkeys(texts))}
        width = max(map(len, texts))
        ids = torch.tensor([[*text, *[pad] * (width - len(text))] for text in place], device=device)
        lengths = torch.tensor([len(text) for text in place], device=device)
        mask = (torch.arange(width, device=device)[None] < lengths[:, None]).long()
        model: Any = base_model(module)
        self._outputs = model.get_encoder()(input_ids=ids, attention_mask=mask)
        self._mask = mask
        self.select(torch.tensor([place[text] for text in texts], device=device))

    def arguments(self) -> dict[str, Any]:
        """What the model's forward is given beside the decoder's tokens."""
        return {"encoder_outputs": self._outputs, "attention_mask": self._mask}

    def select(self, keep: Tensor) -> None:
        """Keep these rows; those whose answers have ended are left out."""
        # the encoder's own kind of output, because mixtures of experts look for their routers' in it
        self._outputs.last_hidden_state = self._outputs.last_hidden_state[keep]
        self._mask = self._mask[keep]


def build_cache() -> EncoderDecoderCache:
    """A cache of the decoder's own keys and values, and of those that it takes from the encoder once."""
    return EncoderDecoderCache(DynamicCache(), DynamicCache())


def refuse_plugins(name: str, cache: CacheFactory | None, decoder: Decoder | None) -> None:
    """Refuse caches and decoders of plugins, which know one row of tokens; the plan does so before.

    Raises:
        ConflictError: one is given.
    """
    other = None if cache is None or cache is FULL_CACHE else f"cache {cache.name}"
    if decoder is not None:
        other = f"decoder {decoder.name}"
    if other is not None:
        raise ConflictError(
            "ENCODER-DECODER",
            f"{other} is for decoder-only models, {name} is an encoder-decoder",
            mend="leave it out, or take another model",
        )
