"""How tokens are chosen."""

from __future__ import annotations

from typing import Any

import torch

from .functional import drafted


def decode(policy: Any, input_ids: torch.Tensor, sampling: Any, cache: Any, *, draft: int) -> list[int]:
    """New token ids after the prompt [1, T]: each pass over the whole text judges the guesses, too."""
    prompt, new = input_ids[0].tolist(), []
    while len(new) < sampling.max_new_tokens and not ended(new, sampling.stop_ids):
        guess = drafted([*prompt, *new], draft=draft)
        ids = torch.tensor([[*prompt, *new, *guess]], device=input_ids.device)
        chosen = (
            policy.module(input_ids=ids, use_cache=False).logits[0, -len(guess) - 1 :].argmax(-1).tolist()
        )
        right = next((n for n, token in enumerate(guess) if token != chosen[n]), len(guess))
        for token in chosen[: right + 1]:
            if len(new) < sampling.max_new_tokens and not ended(new, sampling.stop_ids):
                new.append(token)
    return new


def ended(new: list[int], stop_ids: tuple[int, ...]) -> bool:
    """Whether the answer has its last token."""
    return bool(new) and new[-1] in stop_ids
