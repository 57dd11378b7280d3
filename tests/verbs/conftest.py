"""A policy over a tiny random model, as the verbs get it from ``open_policy``."""

from __future__ import annotations

import pytest

from llmfw.core.generation import GeneratingPolicy, Sampling
from llmfw.core.models import LocalPolicy
from tests.core.generation.conftest import byte_tokenizer, tiny_llama


@pytest.fixture
def policy() -> GeneratingPolicy:
    return GeneratingPolicy(
        LocalPolicy(tiny_llama()),
        byte_tokenizer(),
        Sampling(max_new_tokens=8, stop_ids=(257, 259)),
        batch_size=2,
    )
