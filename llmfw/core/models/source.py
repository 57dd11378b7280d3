"""What a model's name means: a preset, a hub id, a local folder, a run, a checkpoint, or an MLflow run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from llmfw.core.errors import CheckpointError, UsageError
from llmfw.core.models.gguf_file import is_gguf
from llmfw.core.models.presets import near_presets, preset, preset_names
from llmfw.core.schema import AdapterConfig, ModelConfig

Kind = Literal["scratch", "package", "hub", "gguf", "folder", "adapter", "full"]
MANIFEST = "manifest.json"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_MLFLOW_ID = re.compile(r"[0-9a-f]{32}")


_SPECIAL_LORA = (
    "rank_pattern",
    "alpha_pattern",
    "layers_to_transform",
    "exclude_modules",
    "trainable_token_indices",
    "layer_replication",
    "lora_bias",
)
"""Settings of PEFT's LoRA that ``adapter`` doesn't have."""


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Where weights come from.

    kind: ``scratch`` (from ``model.config``, random), ``package`` (a preset's pinned distribution),
        ``hub``, ``gguf`` (a file of that format), ``folder``
    (of transformers), or what llmfw saved: ``full`` (all weights) or ``adapter`` (what was trained, over
    a base).
    """

    kind: Kind
    model: ModelConfig
    """Settings to load it by; its name is resolved (a folder's absolute path), so resolving it again is
    the same.
    """
    folder: Path | None = None
    """Of kinds folder, full and adapter."""
    manifest: Mapping[str, Any] | None = None
    """What was saved beside the weights; kinds full and adapter."""
    plugins: tuple[str, ...] = ()
    """Plugins without which the weights can't be used."""
    settings: Mapping[str, Any] | None = None
    """Root keys (``tokenizer``, and the required plugins' own) under which the weights were made; None:
    none are known.
    """

    @property
    def base(self) -> ModelConfig:
        """The model under an adapter; of other kinds the model itself."""
        return (
            self.model
            if self.kind != "adapter" or self.manifest is None
            else as_model(self.manifest["model"])
        )

    @property
    def held(self) -> str:
        """How a saved adapter's base was quantised while it was trained: none, nf4 or int8."""
        return self.base.quantization if self.kind == "adapter" and self.manifest is not None else "none"

    @property
    def adapter(self) -> AdapterConfig | None:
        """The adapter that was saved, None where there is none."""
        saved = (self.manifest or {}).get("adapter")
        return None if saved is None else AdapterConfig(**_known(AdapterConfig, saved))


def resolve_model(model: ModelConfig | str, *, uri: str | None = None) -> ModelSource:
    """Say what ``model.name`` means; reads at most a manifest, never weights, never the network (but for
    an MLflow run id).

    Args:
        model: settings, or a name alone.
        uri: tracking store in which an MLflow run id is looked up; None: the default one.

    Raises:
        UsageError: no such model; the message has near names.
        CheckpointError: a run without a usable checkpoint, or a manifest that can't be read.
    """
    settings = ModelConfig(name=model) if isinstance(model, str) else model
    name = settings.name
    if name in preset_names() and not settings.config and not settings.package:
        keys = preset(name)
        settings = replace(settings, **{key: keys[key] for key in ("config", "package") if key in keys})
    if settings.package and settings.config:
        # a config given beside the default preset: a model of its own, that has none of the preset's weights
        kind = str(settings.config.get("model_type", "scratch"))
        settings = replace(settings, name=kind, package={})
    if settings.package:
        return ModelSource(kind="package", model=settings)
    if settings.config:
        return ModelSource(kind="scratch", model=settings)
    path = Path(name).expanduser()
    if path.exists():
        return _from_path(path.absolute(), settings)
    if _MLFLOW_ID.fullmatch(name):
        from llmfw.core.tracking import run_folder

        return _from_path(Path(run_folder(name, uri)).absolute(), settings)
    if _HUB_ID.fullmatch(name) and not Path(name.split("/")[0]).exists():
        return ModelSource(kind="hub", model=settings)
    raise _no_such_model(name)


def at_folder(settings: ModelConfig, folder: Path) -> ModelConfig:
    """The weights that were saved in ``folder``, held and computed as these settings say."""
    return replace(settings, name=str(folder), revision=None, config={}, package={})


def as_model(saved: Mapping[str, Any]) -> ModelConfig:
    """The settings in a manifest; keys of newer versions are left out, and trust: a file can't give it."""
    return replace(ModelConfig(**_known(ModelConfig, saved)), trust_remote_code=False)


def _known(kind: type, saved: Mapping[str, Any]) -> dict[str, Any]:
    names = {item.name for item in fields(kind)}
    return {key: value for key, value in saved.items() if key in names}


def _from_path(path: Path, settings: ModelConfig) -> ModelSource:
    if path.is_file():
        if is_gguf(path):
            return ModelSource(kind="gguf", model=replace(settings, name=str(path)))
        raise UsageError(
            "MODEL-FILE",
            "a model is a folder or a GGUF file, this is another file",
            mend="name its folder",
            file=path,
            key="model.name",
        )
    if (path / MANIFEST).is_file():
        return _from_manifest(path, settings)
    if (path / "run.json").is_file():
        return _from_manifest(_newest(path), settings)
    if (path / "config.json").is_file():
        return ModelSource(kind="folder", model=replace(settings, name=str(path)), folder=path)
    if any((path / name).is_dir() for name in ("final", "checkpoints")) or any(path.glob("step-*")):
        return _from_manifest(_newest(path), settings)
    if (path / "adapter_config.json").is_file():
        return _from_peft(path, settings)
    raise UsageError(
        "MODEL-FOLDER",
        "the folder holds no model: neither config.json nor manifest.json",
        file=path,
        mend="name a folder written by save_pretrained, a run's folder or a checkpoint",
        key="model.name",
    )


def _newest(run: Path) -> Path:
    """The folder in a run (or among checkpoints) with its weights: ``final``, else the newest that
    verifies.
    """
    final = run / "final"
    if (final / MANIFEST).is_file():
        return final
    from llmfw.core.checkpoint import newest_verified

    inside = run / "checkpoints"
    found = newest_verified(inside if inside.is_dir() else run)
    if found is None:
        raise CheckpointError(
            "NO-CHECKPOINT",
            "the run has saved no weights yet",
            file=run,
            mend="let it reach a checkpoint, or name another run",
            key="model.name",
        )
    return Path(found)


def _from_manifest(folder: Path, settings: ModelConfig) -> ModelSource:
    manifest = read_manifest(folder)
    kind = manifest.get("kind")
    if kind not in ("adapter", "full") or not isinstance(manifest.get("model"), dict):
        raise CheckpointError(
            "MANIFEST",
            "the manifest doesn't say what model this is",
            file=folder / MANIFEST,
            mend="name a checkpoint or a final folder that llmfw wrote",
        )
    return ModelSource(
        kind=kind,
        model=replace(settings, name=str(folder)),
        folder=folder,
        manifest=manifest,
        plugins=tuple(manifest.get("requires", ())),
        settings=manifest.get("settings") or {},
    )


def _from_peft(folder: Path, settings: ModelConfig) -> ModelSource:
    """A LoRA that plain PEFT saved: what a manifest would say is in ``adapter_config.json``."""
    saved = read_json(folder / "adapter_config.json")
    base, targets = saved.get("base_model_name_or_path"), saved.get("target_modules")
    special = [key for key in _SPECIAL_LORA if saved.get(key)]
    if saved.get("peft_type") != "LORA" or not base or not isinstance(targets, list) or special:
        why = special[0] if special else saved.get("peft_type")
        raise UsageError(
            "ADAPTER",
            f"an adapter with {why} over {base!r} can't be rebuilt here",
            mend="merge it into its base with PEFT, and name the merged model",
            file=folder / "adapter_config.json",
        )
    adapter = {
        "kind": "lora",
        "r": saved.get("r"),
        "alpha": saved.get("lora_alpha"),
        "dropout": saved.get("lora_dropout"),
        "target_modules": sorted({*targets, *(saved.get("target_parameters") or ())}),
        "use_dora": bool(saved.get("use_dora")),
        "use_rslora": bool(saved.get("use_rslora")),
        "modules_to_save": sorted(saved.get("modules_to_save") or ()),
    }
    inside = folder / str(base)
    if (inside / "config.json").is_file():  # an export that brings its base along
        base = str(inside)
    model = {"name": base, "revision": saved.get("revision")}
    return ModelSource(
        kind="adapter",
        model=replace(settings, name=str(folder)),
        folder=folder,
        manifest={"kind": "adapter", "model": model, "adapter": adapter},
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint or final folder.

    Raises:
        CheckpointError: it isn't a json object.
    """
    return read_json(folder / MANIFEST)


def read_json(path: Path) -> dict[str, Any]:
    """A json file that holds an object.

    Raises:
        CheckpointError: it can't be read or isn't an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            "JSON",
            f"not readable as json ({type(error).__name__}: {error})",
            file=path,
            mend="restore the file, or name another folder",
        ) from error
    if not isinstance(value, dict):
        raise CheckpointError(
            "JSON", "not a json object", file=path, mend="restore the file, or name another folder"
        )
    return value


def _no_such_model(name: str) -> UsageError:
    near = near_presets(name)
    if near:
        mend = f"did you mean {' or '.join(near)}?"
    elif "/" in name or name.startswith("."):
        mend = "check the path; a hub id has the form owner/name"
    else:
        mend = (
            f"name a preset ({', '.join(preset_names())}), a folder, a GGUF file, "
            "or a hub id of the form owner/name"
        )
    return UsageError("MODEL-NAME", f"no model named {name!r}", mend=mend, key="model.name")
