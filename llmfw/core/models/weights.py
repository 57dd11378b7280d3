"""Weights into a model: loaded from safetensors or drawn from the run's seed, and hashed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from llmfw.core.cache import cache_dir
from llmfw.core.disk import write_whole
from llmfw.core.errors import CheckpointError, UsageError
from llmfw.core.models.configs import check_folder
from llmfw.core.models.encoder_decoder import auto_class
from llmfw.core.models.fetch import local_folder
from llmfw.core.models.rng import private_rng, seed_of
from llmfw.core.models.source import ModelSource, read_json
from llmfw.core.models.talk import quiet

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_log = logging.getLogger(__name__)
ADAPTER_FILE = "adapter_model.safetensors"
SURGERY_FILE = "surgeries.safetensors"
_FLIPPED = "the file is damaged or was not fully downloaded"


def load_module(
    source: ModelSource, config: PretrainedConfig, seed: int, *, must: Collection[str] | None = None
) -> Any:
    """The model of a source that isn't an adapter, in evaluation mode, on the CPU; global random
    generators stay as they were.

    Random weights are in float32; ``cast`` brings them into the dtype that was asked for.

    Args:
        config: from ``load_model_config``, possibly changed by surgeries.
        seed: of random weights (a model from scratch, or what may be absent).
        must: names that the files must hold; None: all that the model has.

    Raises:
        UsageError: no safetensors, or tensors that the config wants and the files lack.
        CheckpointError: a damaged file.
    """
    auto = auto_class(config)
    dtype = getattr(torch, source.model.dtype)
    if source.kind == "scratch":
        try:
            with private_rng(seed_of(seed, "weights")):
                # always drawn in float32: the same weights, and the same hash, whatever dtype is asked for
                return auto.from_config(
                    config, dtype=torch.float32, attn_implementation=source.model.attention
                ).eval()
        except (ValueError, ImportError) as error:
            raise _no_attention(source, error) or error from error
    folder = local_folder(source)
    check_folder(folder, source.model)
    weight_files(folder)
    try:
        with private_rng(seed_of(seed, "weights")), quiet():
            module, report = auto.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                attn_implementation=source.model.attention,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=source.model.trust_remote_code,
                output_loading_info=True,
            )
    except Exception as error:  # safetensors and transformers raise many kinds where files and config differ
        refused = _no_attention(source, error)
        if refused is not None:
            raise refused from error
        said = " ".join(str(error).split())[:300]
        raise CheckpointError(
            "WEIGHTS",
            f"the weights can't be loaded: {type(error).__name__}: {said}",
            file=folder,
            mend="restore the files or fetch them again",
        ) from error
    missing = sorted(name for name in report["missing_keys"] if must is None or name in must)
    if missing:
        raise CheckpointError(
            "WEIGHTS",
            f"{len(missing)} tensors of the model are not in its files, e.g. {missing[0]}",
            file=folder,
            mend="restore the files, or switch on the plugin whose surgery made them",
        )
    if report["unexpected_keys"]:
        extra = sorted(report["unexpected_keys"])
        _log.warning(
            "%s: %d tensors in the files have no place in the model and were left out, e.g. %s",
            folder,
            len(extra),
            extra[0],
        )
    return module.eval()


def cast(module: Any, dtype: torch.dtype) -> None:
    """Bring a model's parameters and saved buffers into a dtype; buffers that aren't saved (frequencies of
    positions) stay as precise as they are.
    """
    saved = set(module.state_dict())
    for named in (module.named_parameters(), module.named_buffers()):
        for name, value in named:
            if value.is_floating_point() and name in saved:
                value.data = value.data.to(dtype)
    module.config.dtype = dtype


def skeleton(source: ModelSource, config: PretrainedConfig) -> Any:
    """The model that a config describes, on the meta device: nothing is allocated or drawn.

    Raises:
        UsageError: an attention that the architecture lacks, or a config that it can't be built from.
    """
    auto = auto_class(config)
    try:
        with private_rng(0), torch.device("meta"):
            return auto.from_config(config)
    except Exception as error:  # every architecture complains in its own way about sizes that don't fit
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise _no_attention(source, error) or UsageError(
            "MODEL-CONFIG",
            f"no {config.model_type} can be built from this config: {said}",
            mend="mend the values",
            key="model.config" if source.kind == "scratch" else "model.name",
        ) from error


def _no_attention(source: ModelSource, error: Exception) -> UsageError | None:
    """The line for an attention implementation that an architecture or this machine lacks; None for
    another error.
    """
    wanted = source.model.attention
    said = str(error)
    if "attention implementation" not in said and "attn_implementation" not in said:
        return None
    other = "eager" if wanted != "eager" else "sdpa"
    return UsageError(
        "ATTENTION",
        f"{said.split(' does not support')[0][:60]} has no attention {wanted!r} here",
        mend=f"set model.attention={other}",
        key="model.attention",
    )


def source_files(source: ModelSource) -> list[Path]:
    """The safetensors files that hold a source's weights; not for a model from scratch."""
    folder = local_folder(source)
    if source.manifest is None:
        return weight_files(folder)
    names = [ADAPTER_FILE, SURGERY_FILE]
    names += [
        f"{name}.safetensors"
        for saved in source.manifest.get("surgeries", ())
        for name in saved["companions"]
    ]
    found = [folder / name for name in names if (folder / name).is_file()]
    return found if source.manifest["kind"] == "adapter" else [*weight_files(folder), *found]


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
                "MODEL-PICKLE",
                "the weights are a pickle, which can run code when it's read",
                file=pickles[0],
                mend="use a safetensors version of the model",
                key="model.name",
            )
        raise UsageError(
            "MODEL-FOLDER",
            "the folder holds no model.safetensors",
            file=folder,
            mend="name a folder with weights",
            key="model.name",
        )
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
                raise CheckpointError(
                    "WEIGHTS", f"no safetensors file of {size} bytes; {_FLIPPED}", file=path, mend=mend
                )
            found = json.loads(handle.read(length))
        ends = [entry["data_offsets"][1] for name, entry in found.items() if name != "__metadata__"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(
            "WEIGHTS", f"no safetensors file ({type(error).__name__})", file=path, mend=mend
        ) from error
    if 8 + length + max(ends, default=0) != size:
        raise CheckpointError(
            "WEIGHTS",
            f"{size} bytes instead of {8 + length + max(ends, default=0)}; {_FLIPPED}",
            file=path,
            mend=mend,
        )
    return dict(found)


def hash_module(module: nn.Module) -> str:
    """SHA-256 over (name, dtype, shape, bytes) of a module's parameters and saved buffers, sorted by
    name; tied ones once.
    """
    names = {name for name, _ in module.named_parameters()} | {name for name, _ in module.named_buffers()}
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if name in names:
            _feed(digest, name, value)
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
    where = sorted((name, path) for path in paths for name in header(path) if name != "__metadata__")
    with contextlib.ExitStack() as stack:
        handles: dict[Path, Any] = {
            path: stack.enter_context(safe_open(path, framework="pt")) for path in paths
        }
        for name, path in where:
            _feed(digest, name, handles[path].get_tensor(name))
    write_whole(note, json.dumps({"files": facts, "hash": digest.hexdigest()}).encode())
    return digest.hexdigest()


def _feed(digest: Any, name: str, value: Tensor) -> None:
    flat = value.detach().cpu().contiguous().reshape(-1)
    digest.update(f"{name}|{str(value.dtype).removeprefix('torch.')}|{tuple(value.shape)}|".encode())
    digest.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
