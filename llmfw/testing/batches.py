"""Batches of each kind, laid out in each way, from token ids; pairs are in ``llmfw.testing.pairs``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from llmfw.core.batch import Batch
from llmfw.testing.pairs import Block, Layout, build, joined, lay_out, random_pairs

LENGTHS = ((3, 4, 2), (2, 1, 5), (4, 3, 3))
"""(prompt, chosen, rejected) tokens of the samples of a batch that nobody describes further."""
AnswerLayout = Literal["right", "left", "packed"]


@dataclass(frozen=True)
class Answer:
    """Token ids of a prompt and its one answer, with what it's worth; every answer token is trained."""

    id: str
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    reward: float = 0.0


def random_answers(
    lengths: Sequence[tuple[int, int]] = ((3, 4), (2, 1), (4, 3)),
    *,
    vocabulary: int = 32,
    seed: int = 0,
) -> list[Answer]:
    """One answer for each (prompt, answer) length, with rewards 0.0, 0.5, 1.0 and so on."""
    pairs = random_pairs([(*length, 1) for length in lengths], vocabulary=vocabulary, seed=seed)
    return [Answer(f"answer-{i}", pair.prompt, pair.chosen, reward=i / 2) for i, pair in enumerate(pairs)]


def lay_out_answers(
    answers: Sequence[Answer],
    layout: AnswerLayout = "right",
    *,
    scored: bool = False,
    extra_columns: int = 0,
    pad_id: int = 0,
) -> Batch:
    """The answers as a ``text`` batch, or a ``scored`` one (``extra["reward"]``, [samples] float32): padded
    on a side, or all packed in one row. The trained tokens stand in the same order in each layout.
    """
    rows: list[list[Block]] = [
        [Block(one.prompt, 0), Block(one.answer, len(one.prompt), 0, i)] for i, one in enumerate(answers)
    ]
    if layout == "packed":
        rows = [joined(rows)]
    return build(
        rows,
        kind="scored" if scored else "text",
        sample_ids=[one.id for one in answers],
        left=layout == "left",
        extra_columns=extra_columns,
        pad_id=pad_id,
        extra={"reward": torch.tensor([one.reward for one in answers])} if scored else None,
    )


def text_batch(layout: AnswerLayout = "right", *, vocabulary: int = 32, seed: int = 0) -> Batch:
    """Three answers of unlike length."""
    return lay_out_answers(random_answers(vocabulary=vocabulary, seed=seed), layout)


def scored_batch(layout: AnswerLayout = "right", *, vocabulary: int = 32, seed: int = 0) -> Batch:
    """Three answers with rewards 0.0, 0.5 and 1.0."""
    return lay_out_answers(random_answers(vocabulary=vocabulary, seed=seed), layout, scored=True)


def preference_batch(layout: Layout = "right", *, vocabulary: int = 32, seed: int = 0) -> Batch:
    """Three pairs: the chosen answer longer, the rejected one longer, both equally long."""
    return lay_out(random_pairs(LENGTHS, vocabulary=vocabulary, seed=seed), layout)
