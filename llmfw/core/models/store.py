"""Weights into a folder and back, bit for bit: what was trained, in safetensors, and what the manifest
says of it.

Under an adapter a folder holds ``adapter_model.safetensors`` and ``adapter_config.json`` (PEFT's own
form); else a folder of
transformers. Beside either: ``surgeries.safetensors`` (what surgeries added to the model or train in it)
and NAME.safetensors
of each companion, both with the base's hash in their metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from llmfw.core.errors import CheckpointError, PluginError
from llmfw.core.models.adapters import bare, is_adapted, is_adapter_parameter
from llmfw.core.models.fetch import sha256
from llmfw.core.models.floats import spelt
from llmfw.core.models.names import is_quantisation, matches, plain_name
from llmfw.core.models.shards import fill, whole_state
from llmfw.core.models.source import MANIFEST, read_json, read_manifest
from llmfw.core.models.talk import quiet
from llmfw.core.models.weights import ADAPTER_FILE, SURGERY_FILE, header, weight_files
from llmfw.core.records import Surgery
from llmfw.core.schema import Root

if TYPE_CHECKING:
    from llmfw.core.models.build import BuiltModel


def whole_weights(built: BuiltModel, *, keep: bool) -> Mapping[str, Tensor]:
    """The state of a model whose parameters are shared out over processes, with whole tensors on the CPU
    where ``save_weights`` needs them. Every process calls this; one with ``keep`` gets them.
    """
    own = set(built.own)

    def wanted(name: str, value: Tensor) -> bool:
        return built.kind == "full" or value.requires_grad or plain_name(name) in own

    return whole_state(built.module, wanted, keep=keep)


def save_weights(built: BuiltModel, folder: Path, held: Mapping[str, Tensor] | None = None) -> None:
    """Write what was trained into ``folder`` (made if absent), and the tokenizer. The caller makes it
    durable and adds the manifest. ``held``: from ``whole_weights``, where the model's own tensors are pieces.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state, own = _state(built.module, held), set(built.own)
    note = {"format": "pt", "base_hash": built.base_hash}
    if built.kind == "full":
        rest = {name: value.contiguous() for name, value in state.items() if name not in own}
        with quiet():
            bare(built.module).save_pretrained(
                folder, state_dict=rest, save_original_format=False, max_shard_size="1000GB"
            )
    if is_adapted(built.module):
        _save_adapter(built, folder, held)
    if own:
        _write(folder / SURGERY_FILE, {name: value for name, value in state.items() if name in own}, note)
    for name, companion in built.companions.items():
        _write(folder / f"{name}.safetensors", companion_state(name, companion), note)
    if built.tokenizer is not None:
        built.tokenizer.save_pretrained(folder)


def load_weights(built: BuiltModel, folder: Path) -> None:
    """Put saved tensors into a model that was built in the same way, in place. Surgeries that the folder
    doesn't know keep theirs.

    Raises:
        CheckpointError: the folder is of another base, lacks tensors or has too many, or needs a surgery
        that isn't there.
    """
    manifest = read_manifest(folder) if (folder / MANIFEST).is_file() else None
    known: set[str] | None = None
    if manifest is not None:
        _check(built, manifest, folder)
        _verify(manifest, folder)
        known = {saved["name"] for saved in manifest.get("surgeries", ())}
    state, own = _state(built.module), set(built.own)
    found: dict[str, Tensor] = {}
    if built.kind == "full":
        for path in weight_files(folder):
            found |= _read(path)
    if (folder / SURGERY_FILE).is_file():
        found |= _read(folder / SURGERY_FILE)
    wanted = set(state) if built.kind == "full" else own
    fresh = own - _owned(built, own, known) if known is not None else set()
    _copy(state, found, wanted, fresh, folder)
    if is_adapted(built.module):
        _load_adapter(built.module, folder)
    for one in built.reports:
        if known is not None and one.surgery.name not in known:
            continue
        for name in one.report.companions:
            path = folder / f"{name}.safetensors"
            target = companion_state(name, built.companions[name])
            _copy(target, _read(path), set(target), set(), path)


def weights_manifest(
    built: BuiltModel, config: Root | None = None, plugin_settings: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What a manifest has to say for ``resolve_model`` and ``build_model`` to make the model again; json.

    Args:
        plugin_settings: settings by plugin's name; those of plugins without which the weights can't
            be used are kept.
    """
    requires = list(dict.fromkeys(one.plugin for one in built.reports if one.surgery.required_on_load))
    settings = {name: _plain(value) for name, value in (plugin_settings or {}).items() if name in requires}
    return {
        "kind": built.kind,
        "model": asdict(built.model),
        "adapter": asdict(built.adapter) if built.adapter.kind != "none" else None,
        "seed": built.seed,
        "base_hash": built.base_hash,
        "config": json.loads(json.dumps(spelt(dict(built.base_config)), default=str)),
        "plugins": list(config.plugins) if config is not None else requires,
        "requires": requires,
        "surgeries": [
            {
                "name": one.surgery.name,
                "plugin": one.plugin,
                "phase": one.surgery.phase,
                "seed": one.seed,
                "required_on_load": one.surgery.required_on_load,
                "companions": sorted(one.report.companions),
            }
            for one in built.reports
        ],
        "settings": settings,
    }


def check_surgeries(manifest: Mapping[str, Any], surgeries: Sequence[Surgery], folder: Path) -> None:
    """Refuse to load without a surgery that the weights need.

    Raises:
        CheckpointError: the message names the plugin and the flag that switches it on.
    """
    present = {surgery.name for surgery in surgeries}
    for saved in manifest.get("surgeries", ()):
        plugin = saved["plugin"]
        if saved["required_on_load"] and saved["name"] not in present:
            raise CheckpointError(
                "SURGERY-MISSING",
                f"surgery {saved['name']!r} of plugin {plugin!r} made these weights, but isn't switched on",
                mend=f"add --plugin {plugin}",
                file=folder,
            )


def companion_state(name: str, companion: nn.Module) -> dict[str, Tensor]:
    """A companion's state by name.

    Raises:
        PluginError: it holds something that isn't a tensor.
    """
    state = companion.state_dict(keep_vars=True)
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise PluginError(
                "COMPANION",
                f"{key} of companion {name!r} is {type(value).__name__}, not a tensor",
                mend="keep state in tensors",
            )
    return state


def _state(module: nn.Module, held: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The model's state by plain name, adapters left out; values share memory with the model, or are those of
    ``held``.
    """
    return {
        plain_name(name): value
        for name, value in (held if held is not None else module.state_dict(keep_vars=True)).items()
        if not is_adapter_parameter(name) and not is_quantisation(name)
    }


def _owned(built: BuiltModel, own: set[str], known: set[str]) -> set[str]:
    """The state names that the surgeries of these names answer for."""
    ours = [one for one in built.reports if one.surgery.name in known]
    patterns = [pattern for one in ours for pattern in one.surgery.trainable]
    return {name for one in ours for name in one.added} | {name for name in own if matches(name, patterns)}


def _verify(manifest: Mapping[str, Any], folder: Path) -> None:
    """Compare the files of weights with the hashes in a checkpoint's manifest; other files are its
    reader's business.
    """
    files = manifest.get("files") or {}
    for name, entry in sorted(files.items()):
        path = folder / Path(name).name
        if path.suffix != ".safetensors" or not path.is_file():
            continue
        if sha256(path) != entry.get("sha256"):
            raise CheckpointError(
                "CHECKPOINT-DAMAGED",
                "the file isn't the one that was saved: its sha256 differs",
                mend="use another checkpoint of the run",
                file=path,
            )


def _check(built: BuiltModel, manifest: Mapping[str, Any], folder: Path) -> None:
    check_surgeries(manifest, [one.surgery for one in built.reports], folder)
    if manifest.get("kind") != built.kind:
        raise CheckpointError(
            "WEIGHTS-KIND",
            f"the folder holds {manifest.get('kind')!r} weights, the run trains {built.kind!r}",
            mend="use the adapter settings that it was made with",
            file=folder,
        )
    base = str(manifest.get("base_hash"))
    if built.kind == "adapter" and base != built.base_hash and "base_hash" in manifest:
        raise CheckpointError(
            "WEIGHTS-BASE",
            f"the weights' base has hash {base[:12]}, this one {built.base_hash[:12]}",
            mend="use the base model (and seed) that they were trained on",
            file=folder,
        )


def _save_adapter(built: BuiltModel, folder: Path, held: Mapping[str, Tensor] | None) -> None:
    from peft import get_peft_model_state_dict

    own = None if held is None else dict(held)
    state = get_peft_model_state_dict(built.module, state_dict=own, save_embedding_layers=False)
    _write(folder / ADAPTER_FILE, state, {"format": "pt"})
    config = copy(built.module.peft_config["default"])
    config.inference_mode = True
    config.save_pretrained(folder)


def _load_adapter(module: Any, folder: Path) -> None:
    from peft import get_peft_model_state_dict

    _check_ties(module, folder)
    target = get_peft_model_state_dict(
        module, state_dict=module.state_dict(keep_vars=True), save_embedding_layers=False
    )
    _copy(target, _read(folder / ADAPTER_FILE), set(target), set(), folder / ADAPTER_FILE)


def _check_ties(module: Any, folder: Path) -> None:
    """Refuse copies of tied modules that were trained apart: here they share one copy."""
    path = folder / "adapter_config.json"
    tied = module.peft_config["default"].ensure_weight_tying
    if tied and path.is_file() and not read_json(path).get("ensure_weight_tying"):
        raise CheckpointError(
            "WEIGHTS-TIES",
            "its modules_to_save have parted the head from the embeddings, which this base ties",
            mend="merge it into its base with PEFT, and name the merged model",
            file=path,
        )


@torch.no_grad()
def _copy(
    target: Mapping[str, Tensor], found: Mapping[str, Tensor], wanted: set[str], fresh: set[str], place: Path
) -> None:
    """Copy ``found`` into ``target``; every wanted name must be there, or tied to one that is, or be
    ``fresh``.
    """
    mend = "name the checkpoint of this very model, with the same plugins and settings"
    extra = sorted(set(found) - set(target))
    if extra:
        raise CheckpointError(
            "WEIGHTS-NAMES",
            f"{len(extra)} tensors have no place in the model, e.g. {extra[0]}",
            mend=mend,
            file=place,
        )
    held = {id(target[name]) for name in found}
    missing = sorted(name for name in wanted - fresh if name not in found and id(target[name]) not in held)
    if missing:
        raise CheckpointError(
            "WEIGHTS-NAMES", f"{len(missing)} tensors are missing, e.g. {missing[0]}", mend=mend, file=place
        )
    for name, value in found.items():
        if value.shape != target[name].shape:
            shapes = f"{tuple(value.shape)} instead of {tuple(target[name].shape)}"
            raise CheckpointError("WEIGHTS-SHAPE", f"{name} has shape {shapes}", mend=mend, file=place)
        fill(target[name], value)


def _write(path: Path, tensors: Mapping[str, Tensor], note: Mapping[str, str]) -> None:
    """Save tensors; of several names for one tensor the first is kept."""
    from safetensors.torch import save_file

    kept: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name in sorted(tensors):
        value = tensors[name]
        if id(value) not in seen:
            seen.add(id(value))
            kept[name] = value.detach().to("cpu").contiguous().clone()
    save_file(kept, path, metadata=dict(note))


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    header(path)  # refuses absent and damaged files in one line
    loaded: dict[str, Tensor] = load_file(path)
    return loaded


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
