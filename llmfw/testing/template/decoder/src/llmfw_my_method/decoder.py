"""The loop: guess, check in one forward pass, keep what the model would have chosen.

Shapes: T tokens that are read in one pass, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from llmfw.core.generation import Sampling, distribution, pick, prefill, uniforms

from .functional import accepted, guess


def generate(
    policy: Any,
    input_ids: Tensor,
    sampling: Sampling,
    cache: Callable[[], Any],
    *,
    ngram: int,
    length: int,
    counted: Callable[[], None] = lambda: None,
) -> list[int]:
    """The new tokens, the same as one by one: a guess saves forward passes and changes no choice.

    input_ids: [1, T] int64. ``cache`` builds an empty key-value cache; ``counted`` is called at every pass.
    """
    draws = uniforms([sampling.seed], sampling.max_new_tokens)[0]
    past, prompt = cache(), input_ids[0].tolist()
    new: list[int] = []

    def choose(logits: Tensor, first: int) -> list[int]:
        """The model's choice after each position: [T, V] -> T tokens, the answer's ``first``-th and on."""
        if sampling.greedy:
            return [int(token) for token in logits.argmax(-1)]
        probabilities, ids = distribution(
            logits.float(), temperature=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p
        )
        return [int(token) for token in pick(probabilities, ids, draws[first : first + len(logits)])]

    def read(tokens: list[int], seen: int) -> Tensor:
        """[T, V] logits after each of the tokens, which stand behind ``seen`` others."""
        counted()
        ids = torch.tensor([tokens], device=input_ids.device)
        return prefill(policy.module, past, ids, seen=seen, every_position=True)[0]

    def done() -> bool:
        return len(new) >= sampling.max_new_tokens or (bool(new) and new[-1] in sampling.stop_ids)

    new += choose(read(prompt, 0)[-1:], 0)
    while not done():
        room = sampling.max_new_tokens - len(new) - 1  # the pass itself brings one token more
        guessed = guess([*prompt, *new], ngram=ngram, length=min(length, room))
        chosen = choose(read([new[-1], *guessed], len(prompt) + len(new) - 1), len(new))
        right = accepted(guessed, chosen)
        if right < len(guessed):
            past.crop(right - len(guessed))  # negative: so many positions are forgotten
        for token in chosen[: right + 1]:
            new.append(token)
            if done():
                break
    return new
