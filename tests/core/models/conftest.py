"""Tiny models, hand-made batches, and a cache folder of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from llmfw.core.batch import Batch
from llmfw.core.schema import ModelConfig

TINY = {
    "model_type": "llama",
    "vocab_size": 37,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMFW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "cache"


@pytest.fixture
def tiny() -> Callable[..., ModelConfig]:
    """Settings of a tiny Llama from scratch; keywords change its config."""
    return lambda **changes: ModelConfig(name="tiny", config={**TINY, **changes})


def make_batch(
    rows: Sequence[tuple[Sequence[int], int]], *, left: bool = False, extra: dict[str, Any] | None = None
) -> Batch:
    """A batch of (ids, first trained index) rows, padded with 0 on one side; every token from the index
    on is trained.
    """
    width = max(len(ids) for ids, _ in rows)
    input_ids = torch.zeros(len(rows), width, dtype=torch.int64)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    positions = torch.zeros(len(rows), width, dtype=torch.int64)
    source, target, segment, position = [], [], [], []
    for row, (ids, start) in enumerate(rows):
        shift = width - len(ids) if left else 0
        input_ids[row, shift : shift + len(ids)] = torch.tensor(list(ids))
        mask[row, shift : shift + len(ids)] = True
        positions[row, shift : shift + len(ids)] = torch.arange(len(ids))
        for count, index in enumerate(range(start, len(ids)), 1):
            source.append(row * width + shift + index - 1)
            target.append(ids[index])
            segment.append(row)
            position.append(count)
    return Batch(
        kind="text",
        input_ids=input_ids,
        mask=mask,
        position_ids=positions,
        source=torch.tensor(source, dtype=torch.int64),
        target=torch.tensor(target, dtype=torch.int64),
        segment=torch.tensor(segment, dtype=torch.int64),
        position=torch.tensor(position, dtype=torch.int64),
        length=torch.tensor([len(ids) - start for ids, start in rows]),
        sample_ids=tuple(str(row) for row in range(len(rows))),
        extra=extra or {},
    )


@pytest.fixture
def batch() -> Batch:
    """Three rows of lengths 7, 4 and 2, trained from index 3, 1 and 1 on: 4 + 3 + 1 tokens."""
    return make_batch([((5, 9, 2, 31, 8, 8, 1), 3), ((7, 36, 3, 4), 1), ((11, 12), 1)])


@pytest.fixture
def batch_of() -> Callable[..., Batch]:
    return make_batch


@dataclass(frozen=True)
class Tokens:
    ids: tuple[int, ...]
    trained: tuple[bool, ...]


@dataclass(frozen=True)
class Sample:
    """An example as ``llmfw.core.data`` makes them, which this layer may not import."""

    id: str
    sequences: tuple[Tokens, ...]
    extra: dict[str, Any] = field(default_factory=dict)
    packed: bool = False


@pytest.fixture
def sample() -> Callable[..., Sample]:
    """A sample of (ids, first trained index) sequences."""

    def make(name: str, *sequences: tuple[Sequence[int], int]) -> Sample:
        return Sample(
            name,
            tuple(
                Tokens(tuple(ids), tuple(index >= start for index in range(len(ids))))
                for ids, start in sequences
            ),
        )

    return make


@pytest.fixture
def collate() -> Callable[[Sequence[Sample]], Batch]:
    """Rows ordered by side, then example, as the data layer lays them."""

    def collate(examples: Sequence[Sample]) -> Batch:
        sides = [
            example.sequences[side] for side in range(len(examples[0].sequences)) for example in examples
        ]
        return make_batch([(side.ids, side.trained.index(True)) for side in sides])

    return collate
