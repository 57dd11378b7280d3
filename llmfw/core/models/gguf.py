"""An HF folder as one GGUF file, for llama.cpp and what is built on it: Llama, Mistral and Qwen2 models.

Source of names and layouts: the kept ``gguf`` library (its tensor name maps, quantiser and writer).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llmfw.core.errors import CheckpointError, UsageError
from llmfw.core.models.gguf_file import LLAMA3, rope_factors
from llmfw.core.models.gguf_vocabulary import Vocabulary, read_vocabulary
from llmfw.core.models.source import read_json
from llmfw.core.models.weights import weight_files

_log = logging.getLogger(__name__)

DTYPES = ("f32", "f16", "bf16", "q8_0")
"""What ``dtype`` may be. Norms and biases stay f32; where rows aren't whole blocks of 32, q8_0 means f16."""

_ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2"}
"""transformers' model_type -> GGUF's architecture."""
_BIASED = {"qwen2": (".q_proj.bias", ".k_proj.bias", ".v_proj.bias")}
"""Biases that an architecture always has; any other is refused."""
_RESERVED = "mistral"
"""transformers takes a file of exactly this name for an architecture of its own, and can't read it."""


def write_gguf(folder: Path, target: Path, *, dtype: str = "f16") -> None:
    """Write the model and tokenizer of an HF folder (config, safetensors, tokenizer.json) into a GGUF file.

    The file appears whole or not at all; one tensor is held in memory at a time. Before it appears its
    tokenizer is read back and compared with the folder's.

    Args:
        dtype: of matrices: f32, f16, bf16, or q8_0 (blocks of 32 eight-bit integers with one f16 scale).

    Raises:
        UsageError: a dtype, architecture, rotary scaling, tensor or tokenizer that can't be expressed.
        CheckpointError: damaged weights, or values that don't fit in the dtype.
    """
    from gguf import MODEL_ARCH_NAMES

    if dtype not in DTYPES:
        raise UsageError("GGUF-DTYPE", f"no dtype {dtype!r} for a GGUF file", mend=f"use {', '.join(DTYPES)}")
    if target.is_dir():
        raise UsageError("GGUF-TARGET", "the target is a folder", file=target, mend="name a file: model.gguf")
    config = _config(folder)
    architecture = next(
        arch for arch, name in MODEL_ARCH_NAMES.items() if name == _architecture(config, folder)
    )
    vocabulary = read_vocabulary(folder, config.vocab_size)
    tensors = _tensors(folder, config, architecture, dtype)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial.gguf")
    writer = _writer(partial, MODEL_ARCH_NAMES[architecture])
    try:
        _describe(writer, config, folder.absolute().name, dtype)
        _add_vocabulary(writer, vocabulary)
        for tensor in tensors:
            writer.add_tensor_info(
                tensor.name, tensor.shape, np.dtype(np.float32), tensor.bytes, raw_dtype=tensor.kind
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in tensors:
            writer.write_tensor_data(tensor.read())
        writer.close()
        with partial.open("rb") as handle:
            os.fsync(handle.fileno())
        vocabulary.compare(partial)
        partial.replace(target)
    finally:
        writer.close()
        partial.unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """One tensor of the file, read and converted when it's written."""

    name: str
    shape: tuple[int, ...]
    kind: Any
    """Of ``gguf.GGMLQuantizationType``."""
    bytes: int
    read: Callable[[], np.ndarray[Any, Any]]


def _config(folder: Path) -> Any:
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        raise UsageError(
            "MODEL-FOLDER", "the folder holds no config.json", file=folder,
            mend="name a folder written by save_pretrained",
        )  # fmt: skip
    _check_kind(read_json(folder / "config.json").get("model_type"), folder)
    return AutoConfig.from_pretrained(folder, local_files_only=True)


def check_gguf(config: Any, folder: Path) -> None:
    """Refuse a transformers config that a GGUF file can't express, before any weight is read.

    Args:
        folder: where the config is from, for messages.

    Raises:
        UsageError: GGUF-ARCHITECTURE.
    """
    _check_kind(config.model_type, folder)
    _architecture(config, folder)


def _check_kind(kind: Any, folder: Path) -> None:
    if kind not in _ARCHITECTURES:
        raise UsageError(
            "GGUF-ARCHITECTURE", f"a {kind} model can't be written as GGUF", file=folder / "config.json",
            mend=f"keep the HF folder; supported are {', '.join(_ARCHITECTURES)}",
        )  # fmt: skip


def _architecture(config: Any, folder: Path) -> str:
    """GGUF's name of the architecture; what a file can't say is refused."""
    rope = dict(config.rope_parameters or {})
    kind = rope.get("rope_type", "default")
    wrong = {
        f"rotary scaling {kind!r}": kind not in ("default", "linear", "llama3"),
        "other wave lengths in its rotary scaling than Llama 3's": kind == "llama3"
        and {**rope, **LLAMA3} != rope,
        f"activation {config.hidden_act!r}": config.hidden_act not in ("silu", "swish"),
        "biases in attention": bool(getattr(config, "attention_bias", False)),
        "biases in the MLP": bool(getattr(config, "mlp_bias", False)),
        "a sliding window in some layers": bool(getattr(config, "use_sliding_window", False)),
        "a rotary share of a head": float(rope.get("partial_rotary_factor", 1.0)) != 1.0,
    }
    for what, is_wrong in wrong.items():
        if is_wrong:
            raise UsageError(
                "GGUF-ARCHITECTURE", f"a {config.model_type} model with {what} can't be written as GGUF",
                file=folder / "config.json", mend="keep the HF folder",
            )  # fmt: skip
    return _ARCHITECTURES[config.model_type]


def _describe(writer: Any, config: Any, name: str, dtype: str) -> None:
    """The config, in GGUF's keys."""
    from gguf import GGML_QUANT_VERSION, LlamaFileType, RopeScalingType

    kinds = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}
    rope = dict(config.rope_parameters or {})
    length = config.max_position_embeddings
    window = getattr(config, "sliding_window", None)
    if config.model_type == "mistral" and window and window < length:
        _log.warning(
            "GGUF can't express the sliding window of %d tokens: the file's context ends there, not at %d",
            window,
            length,
        )
        length = window
    writer.add_type("model")
    writer.add_name(name if name != _RESERVED else f"{name}-model")
    writer.add_file_type(int(LlamaFileType[kinds[dtype]]))
    if dtype == "q8_0":
        writer.add_quantization_version(GGML_QUANT_VERSION)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(length)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(_head(config))
    writer.add_key_length(_head(config))
    writer.add_value_length(_head(config))
    writer.add_rope_freq_base(float(rope.get("rope_theta", 10000.0)))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if rope.get("rope_type") == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))


def _head(config: Any) -> int:
    """Width of a head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _add_vocabulary(writer: Any, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_merges(vocabulary.merges)
    for name, token in vocabulary.special.items():
        getattr(writer, f"add_{name}_token_id")(token)
    writer.add_add_bos_token(vocabulary.adds_bos)
    writer.add_add_eos_token(vocabulary.adds_eos)
    if vocabulary.template:
        writer.add_chat_template(vocabulary.template)


def _writer(path: Path, architecture: str) -> Any:
    from gguf import GGUFValueType, GGUFWriter, Keys

    class Writer(GGUFWriter):
        """The library's writer, which also writes an empty list: single bytes have no merges."""

        def add_merges(self, merges: list[str]) -> None:
            self.add_key_value(
                Keys.Tokenizer.MERGES, merges, GGUFValueType.ARRAY, sub_type=GGUFValueType.STRING
            )

        def _pack_val(self, val: Any, vtype: Any, add_vtype: bool, sub_type: Any = None) -> bytes:
            if vtype == GGUFValueType.ARRAY and sub_type is not None and not val:
                head = self._pack("I", vtype) if add_vtype else b""
                return bytes(head + self._pack("I", sub_type) + self._pack("Q", 0))
            return bytes(super()._pack_val(val, vtype, add_vtype, sub_type))

    return Writer(path, architecture)


def _tensors(folder: Path, config: Any, architecture: Any, dtype: str) -> list[_Part]:
    """Every tensor of the folder under its GGUF name, in the files' order."""
    from gguf import get_tensor_name_map
    from safetensors import safe_open

    names = get_tensor_name_map(architecture, config.num_hidden_layers)
    found: list[_Part] = []
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as handle:
            for name in handle.keys():  # noqa: SIM118  # no mapping
                if name == "lm_head.weight" and config.tie_word_embeddings:
                    continue
                part = names.get_name(name, try_suffixes=(".weight", ".bias"))
                allowed = _BIASED.get(config.model_type, ())
                if part is None or (name.endswith(".bias") and not name.endswith(allowed)):
                    raise UsageError(
                        "GGUF-TENSOR", f"GGUF has no place for {name} of a {config.model_type} model",
                        mend="what a surgery adds to a model can't be written; keep the HF folder", file=path,
                    )  # fmt: skip
                shape = tuple(handle.get_slice(name).get_shape())
                found.append(_part(part, name, path, shape, config, dtype))
    if (config.rope_parameters or {}).get("rope_type") == "llama3":
        found.append(_rotary(config))
    return found


def _rotary(config: Any) -> _Part:
    """By what each rotary frequency is divided: the form in which GGUF holds Llama 3's scaling."""
    from gguf import GGMLQuantizationType

    factors = np.asarray(rope_factors(config, config.rope_parameters), dtype=np.float32)
    kind = GGMLQuantizationType.F32
    return _Part(
        name="rope_freqs.weight", shape=factors.shape, kind=kind, bytes=factors.nbytes, read=lambda: factors
    )


def _part(part: str, name: str, path: Path, shape: tuple[int, ...], config: Any, dtype: str) -> _Part:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quantize

    kind = GGMLQuantizationType[dtype.upper()] if len(shape) > 1 else GGMLQuantizationType.F32
    if shape[-1] % GGML_QUANT_SIZES[kind][0]:
        _log.warning("%s: rows of %d aren't whole blocks of 32, so it's f16", part, shape[-1])
        kind = GGMLQuantizationType.F16
    block, size = GGML_QUANT_SIZES[kind]

    def read() -> np.ndarray[Any, Any]:
        value = _permuted(_read(path, name), name, config).to(torch.float32).contiguous().numpy()
        with np.errstate(over="ignore"):  # told below, with the tensor's name
            data: np.ndarray[Any, Any] = quantize(value, kind)
        if kind == GGMLQuantizationType.F16 and not np.isfinite(data).all() and np.isfinite(value).all():
            raise CheckpointError(
                "GGUF-RANGE", f"{name} holds {abs(value).max():.3g}, beyond what f16 can hold", file=path,
                mend="write bf16 or f32",
            )  # fmt: skip
        return data

    bytes_ = int(np.prod(shape)) // block * size
    return _Part(name=part, shape=shape, kind=kind, bytes=bytes_, read=read)


def _read(path: Path, name: str) -> Tensor:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as handle:
        value: Tensor = handle.get_tensor(name)
    return value


def _permuted(value: Tensor, name: str, config: Any) -> Tensor:
    """Rows of q and k of a Llama, [H, 2, D / 2] as transformers pairs them -> [H, D / 2, 2] as GGUF does.

    Rotary embeddings turn pairs of dimensions; transformers pairs i with i + D / 2, GGUF's llama 2i with
    2i + 1. Qwen2's files keep transformers' order.
    """
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    count = next((heads[part] for part in heads if f".{part}." in name), None)
    if count is None or _ARCHITECTURES[config.model_type] != "llama":
        return value
    H, half = count, value.shape[0] // count // 2
    return value.reshape(H, 2, half, *value.shape[1:]).transpose(1, 2).reshape(value.shape)
