"""Policies of a run: over a model in training, and over weights that a training saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmfw.core.assemble import Assembled
from llmfw.core.generation import GeneratingPolicy, from_config
from llmfw.core.models import LocalPolicy, at_folder, build_model, resolve_model
from llmfw.core.records import Surgery


def surgeries_of(assembled: Assembled) -> list[tuple[str, Surgery]]:
    """(plugin, surgery) in the user's order."""
    return [(answer.plugin, answer.value) for answer in assembled.plan.answers["llmfw_surgeries"]]


def policy_over(assembled: Assembled, built: Any) -> GeneratingPolicy:
    """The façade of a built model, with the run's sampling settings, cache and decoder."""
    generation = assembled.run.config.generation
    return GeneratingPolicy(
        LocalPolicy(built.module, built.companions, assembled.tokenizer, built.batch_keys),
        assembled.tokenizer,
        from_config(
            generation,
            assembled.tokenizer,
            assembled.run.seed,
            model_generation_config=getattr(built.module, "generation_config", None),
        ),
        cache=assembled.plan.one("llmfw_kv_cache"),
        decoder=assembled.plan.one("llmfw_decoder"),
        batch_size=generation.batch_size,
        backend=_backend(assembled, built),
    )


def _backend(assembled: Assembled, built: Any) -> Any:
    """What samples in place of our own loop, if ``generation.backend`` says so; it starts when it's asked."""
    generation = assembled.run.config.generation
    if generation.backend == "transformers":
        return None
    from llmfw.core.generation.vllm import VllmBackend

    return VllmBackend(built.module, generation.batch_size)


def open_policy_of(assembled: Assembled, weights: Path | None) -> GeneratingPolicy:
    """A frozen policy of the run's model: its base weights, or those that a training saved."""
    settings = assembled.run.config.model
    source = resolve_model(at_folder(settings, weights)) if weights else assembled.settled.source
    root = assembled.run.config
    surgeries = surgeries_of(assembled)
    built = build_model(
        source, root.adapter, surgeries, root.seed, train=False, tokenizer=assembled.tokenizer
    )
    return policy_over(assembled, built)
