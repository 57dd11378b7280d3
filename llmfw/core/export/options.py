"""What an export may be asked for, and what it tells."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llmfw.core.errors import UsageError
from llmfw.core.models.source import ModelSource
from llmfw.core.models.usage import Format

FORMATS = ("hf", "adapter", "gguf")
DTYPES = ("float32", "bfloat16", "float16")
SHARD = "5GB"
_SHARD = re.compile(r"[1-9]\d*(\.\d+)?\s*(KB|MB|GB|TB|KiB|MiB|GiB|TiB)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What is asked for; None stands for what fits the weights."""

    format: Format | None = None
    """hf: a folder of transformers; adapter: a folder of PEFT; gguf: one file for llama.cpp."""
    merge: bool = False
    dtype: str | None = None
    """Of an hf folder's weights; None: the run's, bfloat16 where the base was quantised."""
    gguf_type: str | None = None
    """Of a GGUF file's matrices: f32, f16, bf16, q8_0; None: f16."""
    max_shard_size: str | None = None
    """Largest file of weights, e.g. 5GB; None: 5GB."""
    step: int | None = None
    base: str | None = None
    """Of an adapter: what its config names as the base, instead of writing the base along."""
    licence: str | None = None
    overwrite: bool = False
    trust_remote_code: bool = False
    """Run code from the model's folder, as the run that saved it was told to."""


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """What was written, and how it compares with the model in llmfw."""

    folder: Path
    format: Format
    dtype: str
    source: str
    """The folder or name that the weights were read from."""
    step: int | None
    merged: bool
    bytes: int
    files: Sequence[str]
    difference: float
    """max |logit difference| to the model as llmfw runs it."""
    bound: float | None
    tokens_equal: bool
    """Whether 16 greedy tokens after each prompt are the same."""
    prompts: int
    asked: str
    """What the prompts were."""
    licence: str
    quantization: str = "none"
    """How the base was held in training."""
    quantized_difference: float | None = None
    """max |logit difference| to the model over that quantised base."""
    base: str | None = None
    notes: Sequence[str] = ()
    next: Sequence[str] = field(default_factory=tuple)
    """Command lines that use it."""


def check_options(asked: ExportOptions) -> None:
    """Refuse words that aren't choices, and options without effect."""
    from llmfw.core.models.gguf import DTYPES as GGUF_TYPES

    def wrong(key: str, what: str, mend: str) -> UsageError:
        return UsageError("EXPORT", what, mend=mend, key=key)

    for key, value, choices in (
        ("--format", asked.format, FORMATS),
        ("--dtype", asked.dtype, DTYPES),
        ("--gguf-type", asked.gguf_type, GGUF_TYPES),
    ):
        if value is not None and value not in choices:
            raise wrong(key, f"{value!r} isn't a choice", f"choose one of {', '.join(choices)}")
    if asked.format == "adapter" and asked.merge:
        raise wrong("--merge", "a merged adapter is no adapter", "leave out --merge, or use --format hf")
    if asked.gguf_type is not None and asked.format != "gguf":
        raise wrong("--gguf-type", "only a GGUF file has a GGUF type", "add --format gguf, or leave it out")
    if asked.format == "gguf":
        if asked.dtype is not None:
            raise wrong("--dtype", "a GGUF file's numbers are chosen by --gguf-type", "use --gguf-type")
        if asked.max_shard_size is not None:
            raise wrong("--max-shard-size", "GGUF is one file", "leave it out")
    if asked.base is not None and asked.format in ("hf", "gguf"):
        raise wrong("--base", "whole weights have no base", "leave it out")
    if asked.max_shard_size is not None and not _SHARD.fullmatch(asked.max_shard_size.strip()):
        raise wrong("--max-shard-size", f"{asked.max_shard_size!r} is no size", "write it as 5GB or 500MB")


def form_of(asked: ExportOptions, source: ModelSource) -> tuple[Format, bool]:
    """(format, whether the adapter is merged)."""
    adapter = source.kind == "adapter"
    form: Format = asked.format or ("adapter" if adapter and not asked.merge else "hf")
    if not adapter and (asked.merge or form == "adapter"):
        raise UsageError(
            "EXPORT",
            "there is no adapter: the weights are whole",
            mend="leave out --merge" if asked.merge else "use --format hf",
            key="--merge" if asked.merge else "--format",
        )
    if form == "adapter" and asked.dtype is not None:
        raise UsageError(
            "EXPORT", "an adapter is copied as it is", key="--dtype", mend="leave it out, or add --merge"
        )
    if form != "adapter" and asked.base is not None:
        raise UsageError("EXPORT", "whole weights have no base", mend="leave it out", key="--base")
    return form, adapter and form != "adapter"


def dtype_of(asked: ExportOptions, source: ModelSource, merge: bool) -> str:
    if asked.dtype is not None:
        return asked.dtype
    return "bfloat16" if merge and source.model.quantization != "none" else source.model.dtype
