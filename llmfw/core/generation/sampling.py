"""How an answer is drawn: the settings of one call, and the tokens that end it. Imports no torch."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import Any

from llmfw.core.errors import UsageError
from llmfw.core.models.turns import special_ids as special_ids
from llmfw.core.models.turns import turn_end
from llmfw.core.schema import GenerationConfig


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Settings of one call of ``generate``.

    Args:
        max_new_tokens: longest answer, tokens, the end-of-turn token included.
        temperature: logits are divided by it; 0 is greedy.
        top_p: smallest set of most likely tokens whose mass reaches it; 1 keeps all.
        top_k: candidates per token, ties broken arbitrarily; 0 keeps all.
        stop_ids: tokens that end an answer. They stay in ``Completion.ids`` and are left out of its text.
        stop: strings that end an answer. The text ends before the first of them, the ids with the token
            that completes it.
        seed: a sample is a function of (seed, id of the request, number of the sample); see ``request_seed``.
        samples: answers per prompt.
        first: number of the first of them. 8 samples are those of two calls: 4, and 4 with ``first=4``.
        logps: also return log p(token | prefix) in nats under the model itself, before temperature, top_k
            and top_p.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    stop_ids: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()
    seed: int = 0
    samples: int = 1
    first: int = 0
    logps: bool = False

    def __post_init__(self) -> None:
        # lists from a config file or a keyword argument become tuples: equal settings are equal values
        object.__setattr__(self, "stop_ids", tuple(int(token) for token in self.stop_ids))
        stop: object = self.stop
        object.__setattr__(self, "stop", (stop,) if isinstance(stop, str) else tuple(self.stop))
        _require(self.max_new_tokens >= 1, "max_new_tokens", self.max_new_tokens, "1 or more")
        _require(
            math.isfinite(self.temperature) and self.temperature >= 0,
            "temperature",
            self.temperature,
            "0 (greedy) or more",
        )
        _require(0 < self.top_p <= 1, "top_p", self.top_p, "above 0 and at most 1")
        _require(self.top_k >= 0, "top_k", self.top_k, "0 (all) or more")
        _require(self.samples >= 1, "samples", self.samples, "1 or more")
        _require(self.first >= 0, "first", self.first, "0 or more")
        _require(
            all(isinstance(text, str) and text for text in self.stop),
            "stop",
            self.stop,
            "a list of strings that are not empty",
        )

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature == 0

    @property
    def numbers(self) -> range:
        """Numbers of a prompt's samples."""
        return range(self.first, self.first + self.samples)

    def but(self, **changes: Any) -> Sampling:
        """The same settings with some of them changed; a name that doesn't exist is a UsageError."""
        unknown = sorted(set(changes) - set(self.__dataclass_fields__))
        if unknown:
            raise UsageError(
                "SAMPLING-KEY",
                f"sampling has no setting called {unknown[0]}",
                mend=f"use one of {', '.join(self.__dataclass_fields__)}",
                key=f"generation.{unknown[0]}",
            )
        return replace(self, **changes)


def _require(holds: bool, key: str, value: object, allowed: str) -> None:
    if not holds:
        raise UsageError(
            "SAMPLING", f"{value!r} is no {key}", mend=f"give {allowed}", key=f"generation.{key}"
        )


def from_config(
    config: GenerationConfig, tokenizer: Any, seed: int, *, model_generation_config: Any = None
) -> Sampling:
    """The sampling that a run's ``generation`` settings ask for, with its tokenizer's end-of-turn tokens.

    Args:
        model_generation_config: transformers' ``model.generation_config``; its eos ends an answer too.
    """
    special = special_ids(tokenizer)
    # a special token never shows in the text, so it can only be found by its id
    marks = {text: tokenizer.convert_tokens_to_ids(text) for text in config.stop}
    ends = {token for token in marks.values() if token in special}
    return Sampling(
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=config.top_k,
        stop=tuple(text for text, token in marks.items() if token not in special),
        stop_ids=tuple(sorted({*end_of_turn_ids(tokenizer, model_generation_config), *ends})),
        seed=seed,
    )


def end_of_turn_ids(tokenizer: Any, model_generation_config: Any = None) -> tuple[int, ...]:
    """Ids that end an answer, ascending: the tokenizer's eos, the generation config's, and the special token
    that the chat template writes straight after an assistant's message (for many models not the eos)."""
    found: set[int] = set()
    for owner in (tokenizer, model_generation_config):
        eos = getattr(owner, "eos_token_id", None)
        if eos is not None:
            found.update(eos if isinstance(eos, (list, tuple)) else [eos])
    last = turn_end(tokenizer)
    if last is not None:
        found.add(last)
    return tuple(sorted(int(token) for token in found))


def request_seed(seed: int, request: str | int, sample: int) -> int:
    """Seed of one answer's random numbers, in [0, 2^63): the same whatever else is in the batch."""
    digest = hashlib.sha256(f"{seed}\x1f{request}\x1f{sample}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
