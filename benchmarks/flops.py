"""Arithmetic of a training step by formula, in floating-point operations; a multiply-add is two.

A transformer of Llama's kind with width D, MLP width I, H query heads and K key heads of width d, L layers
and vocabulary V does in its forward pass

    2 L (2 D H d + 2 D K d + 3 D I)    for each position that goes through the layers,
    4 L H d                            for each pair of a query and a key that it attends to,
    2 D V                              for each position whose logits are made.

A backward pass does twice that. A chunked head that keeps no logits makes them again in its backward pass:
four times its forward pass in all instead of three. Norms, activations, embeddings and the optimizer aren't
counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Shape:
    """What the formulas need of a model."""

    width: int
    mlp: int
    heads: int
    key_heads: int
    head_width: int
    layers: int
    vocabulary: int

    @property
    def position(self) -> float:
        """Forward, for each position."""
        of_heads = 2 * self.width * self.head_width * (self.heads + self.key_heads)
        return 2.0 * self.layers * (of_heads + 3 * self.width * self.mlp)

    @property
    def pair(self) -> float:
        """Forward, for each pair of query and key."""
        return 4.0 * self.layers * self.heads * self.head_width

    @property
    def logit(self) -> float:
        """Forward, for each position of the head."""
        return 2.0 * self.width * self.vocabulary


def shape_of(model: Path) -> Shape:
    """The shape that a folder's ``config.json`` says."""
    told: dict[str, Any] = json.loads((model / "config.json").read_text())
    heads = told["num_attention_heads"]
    return Shape(
        width=told["hidden_size"],
        mlp=told["intermediate_size"],
        heads=heads,
        key_heads=told.get("num_key_value_heads") or heads,
        head_width=told.get("head_dim") or told["hidden_size"] // heads,
        layers=told["num_hidden_layers"],
        vocabulary=told["vocab_size"],
    )


@dataclass(frozen=True)
class Work:
    """What goes through a model in a step."""

    positions: int
    pairs: int
    """Of queries and the keys that they attend to."""
    logits: int
    """Positions whose logits are made."""

    def __add__(self, other: Work) -> Work:
        return Work(self.positions + other.positions, self.pairs + other.pairs, self.logits + other.logits)


NONE = Work(0, 0, 0)


def causal(length: int) -> int:
    """Pairs of a row of ``length`` tokens: each attends to itself and those before it."""
    return length * (length + 1) // 2


def training(shape: Shape, work: Work, *, reference: bool, logits_again: bool) -> float:
    """Operations of forward and backward pass; with ``reference`` one forward pass more."""
    body = work.positions * shape.position + work.pairs * shape.pair
    head = work.logits * shape.logit
    return body * (3 + reference) + head * ((4 if logits_again else 3) + reference)


def needed(samples: Iterable[Mapping[str, Any]]) -> Work:
    """The least work of a step: a pair's prompt once, no padding, logits of the trained tokens alone.

    A sample is a pair (``prompt``, ``chosen``, ``rejected`` as token ids) or a text (``ids``, ``trained``).
    """
    found = NONE
    for sample in samples:
        if "ids" in sample:
            length = len(sample["ids"])
            found += Work(length, causal(length), sum(sample["trained"]))
            continue
        prompt = len(sample["prompt"])
        found += Work(prompt, causal(prompt), 0)
        for side in ("chosen", "rejected"):
            length = len(sample[side])
            found += Work(length, prompt * length + causal(length), length)
    return found


def padded(samples: Sequence[Mapping[str, Any]], micro_batch: int, *, all_logits: bool) -> Work:
    """The work of a step in padded batches: prompts on both sides, every row as long as the longest.

    ``all_logits``: of every position but each row's last, else of the trained tokens.
    """
    found = NONE
    for start in range(0, len(samples), micro_batch):
        members = samples[start : start + micro_batch]
        rows = [length for sample in members for length in lengths(sample)]
        width = max(rows)
        trained = sum(map(trained_tokens, members))
        logits = len(rows) * (width - 1) if all_logits else trained
        found += Work(len(rows) * width, len(rows) * causal(width), logits)
    return found


def lengths(sample: Mapping[str, Any]) -> list[int]:
    """Tokens of each sequence of a sample, its prompt with each."""
    if "ids" in sample:
        return [len(sample["ids"])]
    return [len(sample["prompt"]) + len(sample[side]) for side in ("chosen", "rejected")]


def trained_tokens(sample: Mapping[str, Any]) -> int:
    """Tokens of a sample that are trained."""
    if "ids" in sample:
        return sum(sample["trained"])
    return len(sample["chosen"]) + len(sample["rejected"])


def real_tokens(samples: Iterable[Mapping[str, Any]]) -> int:
    """Tokens of whole sequences, prompts with each side, no padding: the same number for every side."""
    return sum(sum(lengths(sample)) for sample in samples)
