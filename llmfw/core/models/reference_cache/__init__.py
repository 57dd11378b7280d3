"""Reference log-probs on disk: one float32 per trained token, computed once per example and reference model.

A cache serves every loss and every alpha and beta of a sweep: it's keyed by what decides the numbers, which
is the reference's weights and arithmetic (the folder, spelt out in its ``key.json``) and the example's own
tokens (the entry). How a batch is laid out, and how many samples it has, is no part of it.

    cache = ReferenceCache(reference_key(built), about={"model": built.model.name})
    cache.fill(examples, collate, reference.logps)
    collate = cache.attach(collate)
"""

from __future__ import annotations

from llmfw.core.models.reference_cache.cache import ReferenceCache
from llmfw.core.models.reference_cache.filling import Filled, State
from llmfw.core.models.reference_cache.keys import example_key, reference_key

__all__ = ["Filled", "ReferenceCache", "State", "example_key", "reference_key"]
