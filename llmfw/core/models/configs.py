"""Model configs: read from a folder or made from settings, and refused where they would run foreign code."""

from __future__ import annotations

import json
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmfw.core.errors import UsageError
from llmfw.core.models.fetch import local_folder
from llmfw.core.models.floats import unspelt
from llmfw.core.models.source import ModelSource, read_json, resolve_model
from llmfw.core.schema import ModelConfig

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def load_model_config(model: ModelConfig | ModelSource) -> PretrainedConfig:
    """The transformers config of a model, with its attention implementation and dtype set; reads no weights.

    Raises:
        UsageError: no config, an unknown ``model_type``, or a config that would run code.
    """
    import torch
    from transformers import AutoConfig

    source = model if isinstance(model, ModelSource) else resolve_model(model)
    settings = source.model
    check_attention(settings)
    if source.kind == "scratch":
        config = _from_settings(settings)
    elif source.kind == "adapter":
        config = load_model_config(base_model(source))
    elif source.manifest is not None and source.manifest.get("surgeries"):
        # what config.json says may need a plugin's classes: surgeries begin from the config before them
        config = _from_settings(replace(settings, config=unspelt(source.manifest["config"])))
    else:
        folder = local_folder(source, weights=False)
        check_folder(folder, settings)
        try:
            config = AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=settings.trust_remote_code
            )
        except (
            Exception
        ) as error:  # transformers raises many kinds: KeyError, ValueError, its own validation errors
            raise bad_config(folder / "config.json", error) from error
        _decoder_start(config, folder)
    config._attn_implementation = settings.attention
    config.dtype = getattr(torch, settings.dtype)
    return config


def _decoder_start(config: PretrainedConfig, folder: Path) -> None:
    """Take over an encoder-decoder's start token where only ``generation_config.json`` says it."""
    path = folder / "generation_config.json"
    name = "decoder_start_token_id"
    asked = getattr(config, "is_encoder_decoder", False) and getattr(config, name, None) is None
    if asked and path.is_file() and (said := read_json(path).get(name)) is not None:
        setattr(config, name, said)


def base_model(source: ModelSource) -> ModelConfig:
    """The base of an adapter, under the dtype, attention, quantisation and trust asked for now; else the
    model itself.
    """
    asked = source.model
    if source.kind != "adapter":
        return asked
    return replace(
        source.base,
        dtype=asked.dtype,
        attention=asked.attention,
        quantization=asked.quantization,
        trust_remote_code=asked.trust_remote_code,
    )


def _from_settings(settings: ModelConfig) -> PretrainedConfig:
    from transformers import CONFIG_MAPPING, AutoConfig

    keys = dict(settings.config)
    kind = keys.pop("model_type", None)
    if kind not in CONFIG_MAPPING:
        near = get_close_matches(str(kind), list(CONFIG_MAPPING), n=2)
        mend = (
            f"did you mean {' or '.join(near)}?"
            if near
            else "set model.config.model_type to one of transformers' types, e.g. llama"
        )
        raise UsageError(
            "MODEL-TYPE",
            f"transformers knows no model_type {kind!r}",
            mend=mend,
            key="model.config.model_type",
        )
    _refuse_code(keys, settings, "model.config")
    try:
        config: PretrainedConfig = AutoConfig.for_model(kind, **keys)
    except Exception as error:  # transformers validates with errors of its own
        raise UsageError(
            "MODEL-CONFIG",
            f"transformers refuses the config of a {kind}: {_line(error)}",
            mend="mend the values",
            key="model.config",
        ) from error
    return config


def check_attention(settings: ModelConfig) -> None:
    """Refuse attention implementations that are fetched from the hub (``owner/kernel``) unless code from
    there is trusted.
    """
    if "/" in settings.attention and not settings.trust_remote_code:
        raise UsageError(
            "REMOTE-CODE",
            f"attention {settings.attention!r} is code from the hub",
            mend="use sdpa or eager, or set model.trust_remote_code=true",
            key="model.attention",
        )


def check_folder(folder: Path, settings: ModelConfig) -> None:
    """Refuse a folder without a config, and configs that would run code that nobody asked for.

    Raises:
        UsageError: see above; the message names the file.
    """
    if not (folder / "config.json").is_file():
        raise UsageError(
            "MODEL-FOLDER",
            "the folder holds no config.json",
            file=folder,
            mend="name a folder written by save_pretrained",
            key="model.name",
        )
    check_code(folder, settings)


def check_code(folder: Path, settings: ModelConfig) -> None:
    """Refuse a folder whose configs name code of their own, unless ``trust_remote_code`` is set."""
    for name in ("config.json", "tokenizer_config.json"):
        path = folder / name
        if path.is_file():
            _refuse_code(read_json(path), settings, path)


def _refuse_code(keys: dict[str, Any], settings: ModelConfig, place: Path | str) -> None:
    if settings.trust_remote_code:
        return
    text = json.dumps(keys, default=str)
    for key in ("auto_map", "_attn_implementation_internal", "custom_pipelines"):
        if f'"{key}"' in text:
            raise UsageError(
                "REMOTE-CODE",
                f"{key!r} would run or choose code of the model's author",
                file=place,
                mend="use a model without it, or set model.trust_remote_code=true if you trust the author",
            )


def bad_config(path: Path, error: Exception) -> UsageError:
    """One line for whatever transformers said about a config."""
    return UsageError(
        "MODEL-CONFIG",
        f"transformers can't use this config: {_line(error)}",
        mend="restore the file, or name another model",
        file=path,
    )


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
