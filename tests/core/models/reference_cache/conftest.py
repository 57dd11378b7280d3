"""Pairs of a few tokens, and the reference of a tiny model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llmfw.core.models import BuiltModel, FrozenPolicy, build_model, reference_of
from llmfw.core.schema import AdapterConfig

LORA = AdapterConfig(kind="lora", r=2)


@pytest.fixture
def pairs(sample: Callable[..., Any]) -> list[Any]:
    """Three pairs whose longer answers have 5, 4 and 4 tokens; 3, 4 and 3 tokens are trained."""
    return [
        sample("p0", ((5, 9, 2, 31, 8), 3), ((5, 9, 7), 2)),
        sample("p1", ((4, 4), 1), ((4, 1, 1, 1), 1)),
        sample("p2", ((20, 21, 22, 23), 2), ((20, 30), 1)),
    ]


@pytest.fixture
def many(sample: Callable[..., Any]) -> list[Any]:
    """Forty pairs of 5 + 3 tokens, each with tokens of its own."""
    return [sample(f"m{n}", ((n % 37, 1, 2, 3, n // 7), 2), ((n % 37, 4, n // 5), 1)) for n in range(36)] + [
        sample(f"n{n}", ((n, 9, 9, n, 8), 3), ((n, 9, 7), 2)) for n in range(4)
    ]


@pytest.fixture
def built(tiny: Callable[..., Any]) -> BuiltModel:
    return build_model(tiny(), LORA, seed=5)


@pytest.fixture
def reference(built: BuiltModel) -> FrozenPolicy:
    return reference_of(built)
