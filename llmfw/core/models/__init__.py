"""Models: names, tokenizers, building, log-probs, references, saving. The public door; all loaded on
first use.

Names mean the same in each function: a preset, a hub id, a local folder, a run's folder, a checkpoint, or an
MLflow run id.

    source = resolve_model("tiny-llama")
    tokenizer = load_tokenizer(source)
    built = build_model(source, AdapterConfig(kind="lora"), surgeries, seed=42, tokenizer=tokenizer)
    policy = LocalPolicy(built.module, built.companions, tokenizer, built.batch_keys)
    reference = reference_of(built)
    policy.logps(batch), reference.logps(batch)
    save_weights(built, folder)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmfw.core.lazy import door

if TYPE_CHECKING:
    from llmfw.core.models.build import BuiltModel, build_model
    from llmfw.core.models.byte_level import byte_tokenizer
    from llmfw.core.models.configs import load_model_config
    from llmfw.core.models.encoder_decoder import Sides, auto_class, is_encoder_decoder, sides_of, with_ids
    from llmfw.core.models.fused_build import ready_to_train
    from llmfw.core.models.merge import merge_adapter
    from llmfw.core.models.parameters import (
        ModelFacts,
        model_facts,
        parameter_groups,
        rank_local_names,
        source_facts,
        trainable_parameters,
    )
    from llmfw.core.models.policy import LocalPolicy, decoder_layers, decoder_of
    from llmfw.core.models.presets import preset, preset_names
    from llmfw.core.models.reference import FrozenPolicy, frozen_policy, reference_of
    from llmfw.core.models.reference_cache import ReferenceCache, reference_key
    from llmfw.core.models.rng import generator_of, private_rng, seed_of
    from llmfw.core.models.scratch import fitted, source_notes
    from llmfw.core.models.shards import gathered
    from llmfw.core.models.source import ModelSource, at_folder, resolve_model
    from llmfw.core.models.store import load_weights, save_weights, weights_manifest, whole_weights
    from llmfw.core.models.tokenizer import check_vocabulary, load_tokenizer

_HOME = {
    "build": ("BuiltModel", "build_model"),
    "byte_level": ("byte_tokenizer",),
    "configs": ("load_model_config",),
    "encoder_decoder": ("Sides", "auto_class", "is_encoder_decoder", "sides_of", "with_ids"),
    "fused_build": ("ready_to_train",),
    "merge": ("merge_adapter",),
    "parameters": (
        "ModelFacts",
        "model_facts",
        "parameter_groups",
        "rank_local_names",
        "source_facts",
        "trainable_parameters",
    ),
    "policy": ("LocalPolicy", "decoder_layers", "decoder_of"),
    "presets": ("preset", "preset_names"),
    "reference": ("FrozenPolicy", "frozen_policy", "reference_of"),
    "reference_cache": ("ReferenceCache", "reference_key"),
    "rng": ("generator_of", "private_rng", "seed_of"),
    "scratch": ("fitted", "source_notes"),
    "source": ("ModelSource", "at_folder", "resolve_model"),
    "shards": ("gathered",),
    "store": ("load_weights", "save_weights", "weights_manifest", "whole_weights"),
    "tokenizer": ("check_vocabulary", "load_tokenizer"),
}

__all__ = [
    "BuiltModel",
    "FrozenPolicy",
    "LocalPolicy",
    "ModelFacts",
    "ModelSource",
    "ReferenceCache",
    "Sides",
    "at_folder",
    "auto_class",
    "build_model",
    "byte_tokenizer",
    "check_vocabulary",
    "decoder_layers",
    "decoder_of",
    "fitted",
    "frozen_policy",
    "gathered",
    "generator_of",
    "is_encoder_decoder",
    "load_model_config",
    "load_tokenizer",
    "load_weights",
    "merge_adapter",
    "model_facts",
    "parameter_groups",
    "preset",
    "preset_names",
    "private_rng",
    "rank_local_names",
    "ready_to_train",
    "reference_key",
    "reference_of",
    "resolve_model",
    "save_weights",
    "seed_of",
    "sides_of",
    "source_facts",
    "source_notes",
    "trainable_parameters",
    "weights_manifest",
    "whole_weights",
    "with_ids",
]

__getattr__, __dir__ = door(__name__, _HOME)
