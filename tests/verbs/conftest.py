"""A policy over a tiny random model, as the verbs get it from ``open_policy``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from llmfw.core.generation import GeneratingPolicy


@pytest.fixture
def policy() -> GeneratingPolicy:
    from llmfw.core.generation import GeneratingPolicy, Sampling
    from llmfw.core.models import LocalPolicy
    from tests.core.generation.conftest import byte_tokenizer, tiny_llama

    sampling = Sampling(max_new_tokens=8, stop_ids=(257, 259))
    return GeneratingPolicy(LocalPolicy(tiny_llama()), byte_tokenizer(), sampling, batch_size=2)
