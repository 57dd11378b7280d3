"""Weights into a model: loaded from safetensors or drawn from the run's seed, and hashed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from llmfw.core.cache import cache_dir
from llmfw.core.errors import CheckpointError, UsageError
from llmfw.core.models.configs import check_folder
from llmfw.core.models.fetch import local_folder
from llmfw.core.models.rng import private_rng, seed_of
from llmfw.core.models.source import ModelSource, read_json

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_log = logging.getLogger(__name__)
_FLIPPED = "the file is damaged or was not fully downloaded"


def load_module(source: ModelSource, config: PretrainedConfig, seed: int, *, must: Collection[str] | None = None) -> PreTrainedModel:
    """The model of a source that isn't an adapter, in evaluation mode, on the CPU; global random generators stay as they were.

    Args:
        config: from ``load_model_config``, possibly changed by surgeries.
        seed: of random weights (a model from scratch, or what may be absent).
        must: names that the files must hold; None: all that the model has.

    Raises:
        UsageError: no safetensors, or tensors that the config wants and the files lack.
        CheckpointError: a damaged file.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as talk

    dtype = getattr(torch, source.model.dtype)
    if source.kind == "scratch":
        with private_rng(seed_of(seed, "weights")):
            module: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=source.model.attention)
        return module.eval()
    folder = local_folder(source)
    check_folder(folder, source.model)
    weight_files(folder)
    bars = talk.is_progress_bar_enabled()
    talk.disable_progress_bar()
    try:
        with private_rng(seed_of(seed, "weights")):
            module, report = AutoModelForCausalLM.from_pretrained(
                folder, config=config, dtype=dtype, attn_implementation=source.model.attention, use_safetensors=True,
                local_files_only=True, trust_remote_code=source.model.trust_remote_code, output_loading_info=True,
            )  # fmt: skip
    except Exception as error:  # safetensors and transformers raise many kinds for one thing: files that don't fit
        said = " ".join(str(error).split())[:300]
        raise CheckpointError(
            "WEIGHTS", f"the weights can't be loaded: {type(error).__name__}: {said}", file=folder, mend="restore the files or fetch them again"
        ) from error
    finally:
        if bars:
            talk.enable_progress_bar()
    missing = sorted(name for name in report["missing_keys"] if must is None or name in must)
    if missing:
        raise CheckpointError(
            "WEIGHTS", f"{len(missing)} tensors of the model are not in its files, e.g. {missing[0]}", file=folder,
            mend="restore the files, or switch on the plugin whose surgery made them",
        )  # fmt: skip
    if report["unexpected_keys"]:
        extra = sorted(report["unexpected_keys"])
        _log.warning("%s: %d tensors in the files have no place in the model and were left out, e.g. %s", folder, len(extra), extra[0])
    return module.eval()


def source_files(source: ModelSource) -> list[Path]:
    """The safetensors files of a source that isn't from scratch; of what llmfw saved, all of its folder."""
    folder = local_folder(source)
    return sorted(folder.glob("*.safetensors")) if source.manifest is not None else weight_files(folder)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors of a folder of transformers: those its index names, or ``model.safetensors``.

    Raises:
        UsageError: there are none; the message says so when there is a pickle instead.
        CheckpointError: a file that the index names is absent or no safetensors file.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        found = sorted({folder / Path(name).name for name in read_json(index).get("weight_map", {}).values()})
    else:
        found = [path for path in [folder / "model.safetensors"] if path.is_file()]
    if not found:
        pickles = sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")])
        if pickles:
            raise UsageError(
                "MODEL-PICKLE", "the weights are a pickle, which can run code when it's read", file=pickles[0],
                mend="use a safetensors version of the model", key="model.name",
            )  # fmt: skip
        raise UsageError("MODEL-FOLDER", "the folder holds no model.safetensors", file=folder, mend="name a folder with weights", key="model.name")
    for path in found:
        header(path)
    return found


def header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file, its lengths checked against the file's size.

    Raises:
        CheckpointError: it's absent, cut short, or something else (a pointer of git-lfs, an error page ...).
    """
    mend = "fetch the file again"
    try:
        size = path.stat().st_size
        with path.open("rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            if size < 8 or length > size - 8:
                raise CheckpointError("WEIGHTS", f"no safetensors file of {size} bytes; {_FLIPPED}", file=path, mend=mend)
            found = json.loads(handle.read(length))
        ends = [entry["data_offsets"][1] for name, entry in found.items() if name != "__metadata__"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError("WEIGHTS", f"no safetensors file ({type(error).__name__})", file=path, mend=mend) from error
    if 8 + length + max(ends, default=0) != size:
        raise CheckpointError("WEIGHTS", f"{size} bytes instead of {8 + length + max(ends, default=0)}; {_FLIPPED}", file=path, mend=mend)
    return dict(found)


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over (name, dtype, shape, bytes) of tensors, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        dtype = str(value.dtype).removeprefix("torch.")
        digest.update(f"{name}|{dtype}|{tuple(value.shape)}|".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data if value.numel() else b"")
    return digest.hexdigest()


def hash_files(paths: Iterable[Path]) -> str:
    """The same hash over the tensors in safetensors files; remembered by path, size and time of change."""
    paths = sorted(paths)
    facts = [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in paths]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    note = cache_dir("hashes") / f"{key}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(note.read_text(encoding="utf-8"))
        if known["files"] == facts:
            return str(known["hash"])
    from safetensors import safe_open

    digest = hashlib.sha256()
    where = {name: path for path in paths for name in header(path) if name != "__metadata__"}
    handles = {path: safe_open(path, framework="pt") for path in paths}
    for name in sorted(where):
        value = handles[where[name]].get_tensor(name)
        dtype = str(value.dtype).removeprefix("torch.")
        digest.update(f"{name}|{dtype}|{tuple(value.shape)}|".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data if value.numel() else b"")
    found = digest.hexdigest()
    partial = note.with_suffix(f".{key[:4]}.tmp")
    partial.write_text(json.dumps({"files": facts, "hash": found}), encoding="utf-8")
    partial.replace(note)
    return found
