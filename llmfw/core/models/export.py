"""Weights written for others to load: a folder of transformers, an adapter of PEFT, and what neither of the
two can express beside them.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmfw.core.errors import UsageError
from llmfw.core.models.adapters import bare, is_adapted, merge_in_place
from llmfw.core.models.build import BuiltModel
from llmfw.core.models.configs import base_model
from llmfw.core.models.fetch import pinned
from llmfw.core.models.names import plain_name
from llmfw.core.models.source import ModelSource, resolve_model
from llmfw.core.models.talk import quiet
from llmfw.core.models.weights import ADAPTER_FILE, SURGERY_FILE, cast, weight_files

BASE = "base"
"""Folder inside an adapter's export that holds the base, where it exists nowhere else."""
_ADAPTER_CONFIG = "adapter_config.json"
_OF_ADAPTERS = (".lora_", ".modules_to_save.")


@dataclass(frozen=True, kw_only=True)
class Base:
    """What an exported adapter stands on. ``written``: its weights are put beside the adapter."""

    name: str
    """What ``adapter_config.json`` says: a hub id, a folder's own name, or ``base``."""
    revision: str | None = None
    written: bool = False
    why: str = ""
    place: str | None = None
    """Where this machine has it, for command lines; never written into a file."""


def base_of(source: ModelSource, named: str | None = None) -> Base:
    """The base of a saved adapter as plain PEFT can find it.

    A hub repository is named with its commit, a user's own folder by its name alone. Weights that only llmfw
    can make (from a seed, a preset's package, a merged adapter, another run) are written along.

    Args:
        named: what the user wants it to be called; nothing is written along then.
    """
    if named is not None:
        return Base(name=named, why="named by --base")
    base = resolve_model(base_model(source))
    if base.kind == "hub":
        return Base(name=base.model.name, revision=pinned(base).model.revision)
    if base.kind == "folder":
        assert base.folder is not None
        why = "a local folder: load it from where you keep it"
        return Base(name=base.folder.name, why=why, place=str(base.folder))
    made = {
        "scratch": "it was made from the run's seed",
        "package": "the preset's weights have no hub id of their own",
        "adapter": "it is a merged adapter of another run",
        "full": "it is the result of another run",
    }
    return Base(name=BASE, written=True, why=made.get(base.kind, "it was converted from another format"))


def write_model(built: BuiltModel, folder: Path, *, dtype: str, max_shard_size: str) -> tuple[str, ...]:
    """Write whole weights, config and generation config as transformers does, in the layout of the hub.

    The model is brought into ``dtype`` in place. Tensors that surgeries added have no place there.

    Returns:
        Plain names of what was left out; ``write_sidecars`` writes them.
    """
    module = bare(built.module)
    cast(module, getattr(torch, dtype))
    added = {name for one in built.reports for name in one.added}
    state = {
        name: value.contiguous()
        for name, value in module.state_dict().items()
        if plain_name(name) not in added
    }
    _save(module, folder, state, max_shard_size)
    return tuple(sorted(added))


def write_adapter(source: ModelSource, folder: Path, base: Base) -> None:
    """Copy a saved adapter bit for bit; its config names the base as others can find it.

    Raises:
        UsageError: EXPORT-ADAPTER, the run trained tensors that an adapter's folder can't hold.
    """
    assert source.folder is not None
    refuse_trained_base(source)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source.folder / ADAPTER_FILE, folder / ADAPTER_FILE)
    config = json.loads((source.folder / _ADAPTER_CONFIG).read_text(encoding="utf-8"))
    config |= {"base_model_name_or_path": base.name, "revision": base.revision, "inference_mode": True}
    (folder / _ADAPTER_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def refuse_trained_base(source: ModelSource) -> None:
    """Refuse to write an adapter alone where surgeries trained or added tensors of the model itself.

    Raises:
        UsageError: EXPORT-ADAPTER, naming the plugin.
    """
    if source.folder is None or not (source.folder / SURGERY_FILE).is_file():
        return
    surgeries = (source.manifest or {}).get("surgeries", ())
    owners = sorted({saved["plugin"] for saved in surgeries}) or ["?"]
    raise UsageError(
        "EXPORT-ADAPTER",
        f"plugin {' and '.join(map(repr, owners))} trained tensors of the base itself, which an adapter's "
        "folder can't hold",
        mend="add --merge",
        file=source.folder / SURGERY_FILE,
    )


def write_base(built: BuiltModel, folder: Path, *, max_shard_size: str) -> None:
    """Write the base under an adapter, as it was before the adapter."""
    model = bare(built.module)
    state = {
        plain_name(name): value.contiguous()
        for name, value in model.state_dict().items()
        if not any(part in name for part in _OF_ADAPTERS)
    }
    _save(model, folder, state, max_shard_size)


def write_copy(module: Any, folder: Path) -> None:
    """Write a model in memory as transformers does, an adapter merged into its weights; it stays as it is."""
    model = merge_in_place(copy.deepcopy(module)) if is_adapted(module) else module
    _save(model, folder, {name: value.contiguous() for name, value in model.state_dict().items()}, "5GB")


def write_sidecars(
    source: ModelSource, built: BuiltModel | None, folder: Path, left_out: Collection[str]
) -> tuple[str, ...]:
    """Copy companions as NAME.safetensors (with the hash of the base that they were trained beside), and
    write added tensors into ``surgeries.safetensors``. Plain transformers reads neither.

    Returns:
        Names of the files.
    """
    written = []
    for saved in (source.manifest or {}).get("surgeries", ()):
        for name in saved["companions"]:
            assert source.folder is not None
            shutil.copyfile(source.folder / f"{name}.safetensors", folder / f"{name}.safetensors")
            written.append(f"{name}.safetensors")
    if left_out:
        from safetensors.torch import save_file

        assert built is not None
        state = {plain_name(name): value for name, value in bare(built.module).state_dict().items()}
        tensors: dict[str, Tensor] = {name: state[name].detach().cpu().clone() for name in left_out}
        save_file(tensors, folder / SURGERY_FILE, metadata={"format": "pt", "base_hash": built.base_hash})
        written.append(SURGERY_FILE)
    return tuple(written)


def write_generation_config(module: Any, folder: Path) -> None:
    """Write ``generation_config.json`` alone (an adapter's folder has no model that brings it)."""
    found = getattr(bare(module), "generation_config", None)
    if found is not None:
        _sampling_said(found)
        found.save_pretrained(folder)


def weight_bytes(module: Any, dtype: str) -> int:
    """What the model's weights take on disk in ``dtype``; tied ones count once."""
    width = torch.finfo(getattr(torch, dtype)).bits // 8
    return sum(
        value.numel() * (width if value.is_floating_point() else value.element_size())
        for value in bare(module).parameters()
    )


def stored_dtype(folder: Path) -> str | None:
    """The dtype of most of a folder's weights, by their files' headers; None where it has another."""
    from llmfw.core.models.weights import header

    names: Mapping[str, str] = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
    counts: dict[str, int] = {}
    for path in weight_files(folder):
        for name, entry in header(path).items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                counts[entry["dtype"]] = counts.get(entry["dtype"], 0) + end - begin
    return names.get(max(counts, key=lambda name: counts[name], default=""))


def _save(module: Any, folder: Path, state: Mapping[str, Tensor], max_shard_size: str) -> None:
    if getattr(module, "generation_config", None) is not None:
        _sampling_said(module.generation_config)
    if not getattr(module, "_weight_conversions", None):
        # loaded from llmfw's own folder, which holds tensors as they are in memory: with None transformers
        # takes the architecture's own conversions, and writes experts one by one as the hub has them
        module._weight_conversions = None
    with quiet():
        module.save_pretrained(folder, state_dict=dict(state), max_shard_size=max_shard_size)


def _sampling_said(config: Any) -> None:
    """Many published generation configs have a temperature but don't sample; transformers refuses to write
    such a one. What they mean is that they sample.
    """
    if not config.do_sample and any(
        getattr(config, name, None) not in (None, plain)
        for name, plain in (("temperature", 1.0), ("top_p", 1.0), ("top_k", 50), ("min_p", None))
    ):
        config.do_sample = True
