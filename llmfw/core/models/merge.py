"""A saved adapter merged into its base: one model without PEFT, in the base's own dtype."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from llmfw.core.errors import UsageError
from llmfw.core.models.adapters import merge_in_place
from llmfw.core.models.build import BuiltModel, build_model, check_mergeable
from llmfw.core.models.configs import base_model
from llmfw.core.models.fetch import local_folder
from llmfw.core.models.source import ModelSource, read_json, resolve_model
from llmfw.core.models.weights import hash_files, source_files
from llmfw.core.records import Surgery
from llmfw.core.schema import AdapterConfig

_DTYPES = ("float32", "bfloat16", "float16")


def merge_adapter(
    source: ModelSource, surgeries: Sequence[tuple[str, Surgery]] = (), *, dtype: str | None = None
) -> BuiltModel:
    """The base with the saved adapter merged into it, frozen, on the CPU, without PEFT.

    The base is loaded as it was before any quantisation, in its own dtype (``base_dtype``); each layer is
    merged in float32 and then rounded to that dtype once. Where the adapter changes one of two tied weights,
    the merged model has both (``tie_word_embeddings`` of its config is false then).

    Args:
        surgeries: those that the adapter was trained with, as ``build_model`` takes them.
        dtype: of the merged weights; None: the base's own.

    Raises:
        UsageError: a source without an adapter, or a surgery that stands over it.
        CheckpointError: as ``build_model``.
    """
    if source.kind != "adapter":
        raise UsageError(
            "MODEL-MERGE",
            "there is no adapter to merge: the model's weights are whole",
            mend="name an adapter's run or folder",
            file=source.folder,
            key="model.name",
        )
    own = dtype or base_dtype(source)
    settings = replace(source.model, dtype=own, quantization="none")
    built = build_model(replace(source, model=settings), surgeries=surgeries, train=False)
    check_mergeable(built, source)
    module: Any = merge_in_place(built.module).eval()
    module.requires_grad_(False)
    digest = f"{built.base_hash}+{hash_files(source_files(source))}"
    return replace(
        built,
        module=module,
        kind="full",
        adapter=AdapterConfig(),
        model=replace(built.model, dtype=own, quantization="none"),
        base_hash=hashlib.sha256(digest.encode()).hexdigest(),
        frozen=(),
    )


def base_dtype(source: ModelSource) -> str:
    """The dtype in which an adapter's base is stored: its config's, else the one it was trained in."""
    base = resolve_model(base_model(source))
    if base.kind == "adapter":
        return base_dtype(base)
    if base.kind == "scratch":
        return source.base.dtype
    saved = read_json(local_folder(base, weights=False) / "config.json")
    text = saved.get("text_config")
    for place in (saved, text if isinstance(text, dict) else {}):
        found = str(place.get("dtype") or place.get("torch_dtype") or "").removeprefix("torch.")
        if found in _DTYPES:
            return found
    return source.base.dtype
