"""Toy tokenizers as fixtures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llmfw.core.models.byte_level import byte_tokenizer
from tests.core.data.support import llama_like


@pytest.fixture
def byte() -> Any:
    return byte_tokenizer()


@pytest.fixture
def make_tokenizer() -> Callable[..., Any]:
    return llama_like
