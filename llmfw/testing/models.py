"""Tiny real models from configs: nothing is downloaded, a few milliseconds each."""

from __future__ import annotations

from typing import Any

import torch

PRESETS = ("tiny-llama", "tiny-mixtral", "tiny-mamba")
"""A decoder-only transformer, a mixture of experts, a recurrent model; also names for ``model=NAME``."""


def tiny_model(
    preset: str = "tiny-llama", *, seed: int = 0, dtype: torch.dtype = torch.float32, **config: Any
) -> Any:
    """A transformers model of a preset with random weights over the byte tokenizer's 261 tokens, in eval
    mode.

    Args:
        preset: one of ``PRESETS``, or any other preset that is a config.
        seed: of the weights; the global generator isn't touched.
        config: keys of the config to change, e.g. ``initializer_range=0.3`` for logits far apart.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    from llmfw.core.models import preset as keys_of

    settings = {**keys_of(preset)["config"], **config}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings))  # type: ignore[no-untyped-call]
    return model.to(dtype).eval()
