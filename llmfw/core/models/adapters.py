"""Adapters: LoRA through PEFT."""

from __future__ import annotations

from typing import Any

from torch import nn

from llmfw.core.errors import UsageError
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
        task_type="CAUSAL_LM",
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
