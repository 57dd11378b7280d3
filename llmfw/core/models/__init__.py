"""Models: names, tokenizers, building, log-probs, references, saving. The public door; everything is loaded on first use.

Names mean the same in each function: a preset, a hub id, a local folder, a run's folder, a checkpoint, an MLflow run id.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmfw.core.models.build import BuiltModel, build_model
    from llmfw.core.models.byte_tokenizer import byte_tokenizer
    from llmfw.core.models.configs import load_model_config
    from llmfw.core.models.policy import LocalPolicy, decoder_layers, decoder_of
    from llmfw.core.models.presets import preset, preset_names
    from llmfw.core.models.source import ModelSource, resolve_model
    from llmfw.core.models.store import load_weights, save_adapter_or_model, save_weights, weights_manifest
    from llmfw.core.models.tokenizer import check_vocabulary, load_tokenizer

_HOME = {
    "build": ("BuiltModel", "build_model"),
    "byte_tokenizer": ("byte_tokenizer",),
    "configs": ("load_model_config",),
    "policy": ("LocalPolicy", "decoder_layers", "decoder_of"),
    "presets": ("preset", "preset_names"),
    "source": ("ModelSource", "resolve_model"),
    "store": ("load_weights", "save_adapter_or_model", "save_weights", "weights_manifest"),
    "tokenizer": ("check_vocabulary", "load_tokenizer"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [  # noqa: PLE0604  # the table above is the list of public names
    *sorted(_MODULE_OF),
]  # fmt: skip


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value
