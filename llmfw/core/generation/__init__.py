"""Generation: the door through which plugins and the rest of llmfw ask a model to write.

Engine: ``generate``, its settings ``Sampling`` (``from_config``), ``end_of_turn_ids``, ``request_seed``.
Prompts: ``prompt_of`` a row, ``encode_prompt`` (``encode_sides`` of an encoder-decoder; ``ids_read`` of
either), ``render``.
Caches: ``FULL_CACHE``, ``attention_of`` (switches a cache's attention function on), ``prefill``.
Drawing: ``distribution``, ``pick``, ``uniforms``. Ends: ``finish``, ``TextStream``.
Policies: ``GeneratingPolicy``, ``ScriptedPolicy`` (``load_script``), ``EndpointPolicy``.
Scores: ``score_examples``. Reports: ``generated_length``.
Self-generated data: ``Rollouts`` asks for judged ``Attempt``s, ``self_training`` makes rounds of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmfw.core.lazy import door

if TYPE_CHECKING:
    from llmfw.core.generation.attempts import Attempt, Rollouts, distinct, scored_row, trained_row
    from llmfw.core.generation.caches import FULL_CACHE, attention_of, context_length, prefill
    from llmfw.core.generation.choose import distribution, pick, uniforms
    from llmfw.core.generation.endpoint import Endpoint, EndpointPolicy
    from llmfw.core.generation.engine import generate
    from llmfw.core.generation.policies import GeneratingPolicy, ScriptedPolicy, Usage
    from llmfw.core.generation.prompts import encode_prompt, encode_sides, ids_read, prompt_of, render
    from llmfw.core.generation.reports import generated_length
    from llmfw.core.generation.sampling import Sampling, end_of_turn_ids, from_config, request_seed
    from llmfw.core.generation.scores import AnswerScore, score_examples
    from llmfw.core.generation.script import load_script, script_hash
    from llmfw.core.generation.self_improvement import (
        Collected,
        SelfTrainingConfig,
        counts,
        gold_rows,
        self_training,
    )
    from llmfw.core.generation.stopping import TextStream, finish

_HOME = {
    "attempts": ("Attempt", "Rollouts", "distinct", "scored_row", "trained_row"),
    "caches": ("FULL_CACHE", "attention_of", "context_length", "prefill"),
    "choose": ("distribution", "pick", "uniforms"),
    "endpoint": ("Endpoint", "EndpointPolicy"),
    "engine": ("generate",),
    "policies": ("GeneratingPolicy", "ScriptedPolicy", "Usage"),
    "prompts": ("encode_prompt", "encode_sides", "ids_read", "prompt_of", "render"),
    "reports": ("generated_length",),
    "sampling": ("Sampling", "end_of_turn_ids", "from_config", "request_seed"),
    "script": ("load_script", "script_hash"),
    "scores": ("AnswerScore", "score_examples"),
    "self_improvement": ("Collected", "SelfTrainingConfig", "counts", "gold_rows", "self_training"),
    "stopping": ("TextStream", "finish"),
}

__all__ = [
    "FULL_CACHE",
    "AnswerScore",
    "Attempt",
    "Collected",
    "Endpoint",
    "EndpointPolicy",
    "GeneratingPolicy",
    "Rollouts",
    "Sampling",
    "ScriptedPolicy",
    "SelfTrainingConfig",
    "TextStream",
    "Usage",
    "attention_of",
    "context_length",
    "counts",
    "distinct",
    "distribution",
    "encode_prompt",
    "encode_sides",
    "end_of_turn_ids",
    "finish",
    "from_config",
    "generate",
    "generated_length",
    "gold_rows",
    "ids_read",
    "load_script",
    "pick",
    "prefill",
    "prompt_of",
    "render",
    "request_seed",
    "score_examples",
    "scored_row",
    "script_hash",
    "self_training",
    "trained_row",
    "uniforms",
]

__getattr__, __dir__ = door(__name__, _HOME)
