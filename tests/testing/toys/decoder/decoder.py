"""How tokens are chosen."""

from __future__ import annotations

from typing import Any

import torch

from .functional import likeliest


def decode(policy: Any, input_ids: torch.Tensor, sampling: Any, cache: Any, *, window: int) -> list[int]:
    """New token ids after the prompt [1, T], one forward pass each."""
    past, ids, new = cache(), input_ids, []
    while len(new) < sampling.max_new_tokens:
        logits = policy.module(input_ids=ids, past_key_values=past, use_cache=True).logits[0, -1]
        new.append(likeliest(logits, new, window=window))
        if new[-1] in sampling.stop_ids:
            break
        ids = torch.tensor([new[-1:]], device=input_ids.device)
    return new
