"""Adapters: LoRA through PEFT."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from llmfw.core.errors import UsageError
from llmfw.core.models.encoder_decoder import is_encoder_decoder
from llmfw.core.models.names import plain_name
from llmfw.core.models.rng import private_rng, seed_of
from llmfw.core.models.talk import quiet
from llmfw.core.schema import AdapterConfig


def add_lora(module: Any, adapter: AdapterConfig, seed: int, base: str) -> Any:
    """The module with low-rank adapters (arXiv 2106.09685) on its linear layers, everything else frozen.

    The adapters' A is drawn from ``seed``, B is zero, so the model's outputs are those of its base at first.

    Args:
        base: what ``adapter_config.json`` names as the base model.

    Raises:
        UsageError: a rank below 1, or target modules that match nothing.
    """
    with quiet():
        from peft import LoraConfig, get_peft_model

    if adapter.r < 1:
        raise UsageError("ADAPTER", f"a rank of {adapter.r}", mend="use 1 or more", key="adapter.r")
    if not 0.0 <= adapter.dropout < 1.0:
        raise UsageError(
            "ADAPTER", f"a dropout of {adapter.dropout}", mend="use 0 to below 1", key="adapter.dropout"
        )
    targets = list(adapter.target_modules)
    every = targets == ["all-linear"]
    if not every:
        _check_targets(module, targets)
    config = LoraConfig(
        r=adapter.r,
        lora_alpha=adapter.alpha,  # type: ignore[arg-type]  # PEFT divides it by r: any number will do
        lora_dropout=adapter.dropout,
        task_type="SEQ_2_SEQ_LM" if is_encoder_decoder(module.config) else "CAUSAL_LM",
        target_modules="all-linear" if every else targets,
        base_model_name_or_path=base,
    )
    module.name_or_path = base
    with private_rng(seed_of(seed, "lora")), quiet():
        try:
            wrapped = get_peft_model(module, config)
        except (ValueError, TypeError, RuntimeError) as error:
            raise UsageError(
                "ADAPTER",
                f"PEFT can't put adapters on this model: {' '.join(str(error).split())[:200]}",
                mend="name other layers",
                key="adapter.target_modules",
            ) from error
    wrapped.peft_config["default"].base_model_name_or_path = base
    return wrapped


@torch.no_grad()
def merge_in_place(module: Any) -> Any:
    """The transformers model inside PEFT's wrapper with the adapter merged into its weights, which keep
    their dtype.

    Each layer is merged in float32 (float64 of a float64 layer) and then rounded once. Where the adapter
    changes one of two tied weights, they are untied, and the config says so.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    model = bare(module)
    _untie(model, [part.get_base_layer() for part in module.modules() if isinstance(part, BaseTunerLayer)])
    for part in [part for part in module.modules() if isinstance(part, BaseTunerLayer)]:
        layer = part.get_base_layer()
        dtypes = {name: value.dtype for name, value in layer.named_parameters(recurse=False)}
        for name, value in layer.named_parameters(recurse=False):
            value.data = value.data.to(torch.promote_types(dtypes[name], torch.float32))
        part.merge()  # type: ignore[operator]  # every layer of a tuner has it
        for name, value in layer.named_parameters(recurse=False):
            value.data = value.data.to(dtypes[name])
    merged = module.unload()
    head, embedding = merged.get_output_embeddings(), merged.get_input_embeddings()
    if head is not None and head.weight is not embedding.weight:
        _say_untied(merged)
    return merged


def _untie(model: Any, changed: list[Any]) -> None:
    """Give each layer that is about to change a weight of its own, where it shares one."""
    owners: dict[int, int] = {}
    for _, parameter in model.named_parameters(remove_duplicate=False):
        owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    for layer in changed:
        weight = getattr(layer, "weight", None)
        if isinstance(weight, nn.Parameter) and owners.get(id(weight), 0) > 1:
            layer.weight = nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad)


def _say_untied(model: Any) -> None:
    """Write into the config that head and embeddings are two."""
    for config in {id(part): part for part in (model.config, model.config.get_text_config())}.values():
        if getattr(config, "tie_word_embeddings", False):
            config.tie_word_embeddings = False
    model.all_tied_weights_keys = {}


def is_adapted(module: Any) -> bool:
    """Whether a module is PEFT's wrapper."""
    return hasattr(module, "peft_config") and hasattr(module, "get_base_model")


def bare(module: Any) -> Any:
    """The transformers model inside PEFT's wrapper, or the module itself."""
    return module.get_base_model() if is_adapted(module) else module


def is_adapter_parameter(name: str) -> bool:
    """Whether a parameter name is LoRA's own."""
    return ".lora_" in plain_name(name)


def _check_targets(module: nn.Module, targets: list[str]) -> None:
    if "all-linear" in targets:
        raise UsageError(
            "ADAPTER",
            "'all-linear' stands for all linear layers, beside it nothing else can be named",
            mend="name either",
            key="adapter.target_modules",
        )
    linear = [
        name
        for name, part in module.named_modules()
        if isinstance(part, (nn.Linear, nn.Embedding)) or "Conv1D" in type(part).__name__
    ]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in linear):
            known = sorted({name.rsplit(".", 1)[-1] for name in linear})
            raise UsageError(
                "ADAPTER",
                f"no layer of the model is named {target!r}",
                mend=f"choose of: {', '.join(known)}; or all-linear",
                key="adapter.target_modules",
            )
