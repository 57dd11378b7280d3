"""GGUF files as models: looked at, then dequantised once into an HF folder in the user's cache."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmfw.core.cache import cache_dir, locked_build
from llmfw.core.errors import CheckpointError, UsageError
from llmfw.core.models.talk import quiet, waiting

_log = logging.getLogger(__name__)
MAGIC = b"GGUF"
_PLAIN = ("F32", "F16", "BF16", "F64")
_SPLIT = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
_NOTE = "gguf.json"
LLAMA3 = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
"""Llama 3's rotary scaling, but for its factor."""
_FORMAT = 1
"""Raised when the conversion changes what it writes: old conversions are then left alone and made anew."""


@dataclass(frozen=True, kw_only=True)
class GgufFile:
    """What a file's header says."""

    path: Path
    architecture: str
    kinds: Mapping[str, int]
    """Tensors by their type: ``{"Q4_1": 210, "F32": 61}``."""
    values: int
    """Numbers in all tensors."""
    fields: Mapping[str, Any]
    """Scalars and short lists of the header; of longer ones the length."""
    biased: bool
    """Whether queries have a bias."""
    factors: tuple[float, ...] = ()
    """``rope_freqs.weight``: by what each rotary frequency is divided."""

    @property
    def quantised(self) -> bool:
        """Whether some tensors are held in fewer than 16 bits a value."""
        return any(kind not in _PLAIN for kind in self.kinds)

    def get(self, key: str) -> Any:
        """The value of ``ARCHITECTURE.key``, None where the file has none."""
        return self.fields.get(f"{self.architecture}.{key}")


def is_gguf(path: Path) -> bool:
    """Whether a file is meant as GGUF: by its first bytes or its name."""
    with contextlib.suppress(OSError), path.open("rb") as handle:
        return handle.read(4) == MAGIC or path.suffix == ".gguf"
    return path.suffix == ".gguf"


def look(path: Path) -> GgufFile:
    """The header of a GGUF file; no weights are read.

    Raises:
        UsageError: no GGUF file, one of another byte order, one part of several, or one without a tokenizer.
        CheckpointError: it's cut short or damaged.
    """
    from gguf import GGUFReader

    with path.open("rb") as handle:
        head = handle.read(8)
    if head[:4] != MAGIC:
        raise UsageError(
            "GGUF-FILE", f"no GGUF file: it begins with {head[:4]!r}, not with {MAGIC!r}", file=path,
            mend="fetch it again, or name a folder", key="model.name",
        )  # fmt: skip
    if len(head) == 8 and 0 < int.from_bytes(head[4:], "big") < 1 << 16:
        raise UsageError(
            "GGUF-FILE", "a big-endian GGUF file", file=path,
            mend="fetch the little-endian one", key="model.name",
        )  # fmt: skip
    try:
        reader = GGUFReader(path)
        fields = {name: _value(field) for name, field in reader.fields.items()}
        tensors = list(reader.tensors)
        short = [one.name for one in tensors if one.data.nbytes != one.n_bytes]
        factors = tuple(float(x) for one in tensors if one.name == "rope_freqs.weight" for x in one.data)
    except Exception as error:  # the reader trusts the file: it fails in many ways
        raise CheckpointError(
            "GGUF-DAMAGED", f"the file is cut short or damaged ({type(error).__name__})", file=path,
            mend="fetch it again",
        ) from error  # fmt: skip
    if short:
        raise CheckpointError(
            "GGUF-DAMAGED", f"the file is cut short in {short[0]}", file=path, mend="fetch it again"
        )
    found = GgufFile(
        path=path,
        architecture=str(fields.get("general.architecture")),
        kinds=dict(Counter(one.tensor_type.name for one in tensors).most_common()),
        values=sum(int(one.n_elements) for one in tensors),
        fields=fields,
        biased=any(one.name.endswith("attn_q.bias") for one in tensors),
        factors=factors,
    )
    _check(found)
    return found


def _value(field: Any) -> Any:
    from gguf import GGUFValueType

    if field.types[:1] == [GGUFValueType.ARRAY] and len(field.data) > 64:
        return len(field.data)
    return field.contents()


def _check(found: GgufFile) -> None:
    what = None
    if int(found.fields.get("split.count") or 0) > 1 or _SPLIT.search(found.path.name):
        what, mend = "one part of a split GGUF file", "join the parts first: llama-gguf-split --merge"
    elif found.fields.get("general.type", "model") != "model" or "general.architecture" not in found.fields:
        what, mend = f"a GGUF file of {found.fields.get('general.type', 'no model')}", "name the model's file"
    elif not found.fields.get("tokenizer.ggml.tokens"):
        what, mend = "a GGUF file without a tokenizer", "convert it with its tokenizer"
    if what:
        raise UsageError("GGUF-FILE", what, file=found.path, mend=mend, key="model.name")


def gguf_folder(path: Path) -> Path:
    """The converted model of a GGUF file: ``models/gguf-SHA`` in the user's cache, built under a lock.

    The key is the file's content, so a copy of it elsewhere means the same folder.

    Raises:
        UsageError, CheckpointError: see ``look`` and ``convert``.
    """
    target = cache_dir("models") / f"gguf-{content_hash(path)[:16]}-{_FORMAT}"
    return locked_build(target, lambda folder: _build(path, folder))


def gguf_note(path: Path) -> str:
    """What a user should know of the weights of a GGUF file, in one sentence."""
    said = json.loads((gguf_folder(path) / _NOTE).read_text(encoding="utf-8"))
    kinds = ", ".join(f"{count} {kind}" for kind, count in said["kinds"].items())
    if not said["quantised"]:
        return f"{path.name} holds tensors of {kinds}, read as float32"
    return (
        f"{path.name} holds tensors of {kinds}, dequantised to float32: full fine-tuning starts from the "
        "dequantised values"
    )


def _build(path: Path, folder: Path) -> None:
    with waiting(f"{path.name}: convert to safetensors (once)"):
        found = convert(path, folder)
    said = {"file": path.name, "kinds": dict(found.kinds), "quantised": found.quantised}
    (folder / _NOTE).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


def content_hash(path: Path) -> str:
    """SHA-256 of a file, remembered by path, size and time of change."""
    from llmfw.core.cache import cached_json

    about = path.stat()
    facts = [str(path.resolve()), about.st_size, about.st_mtime_ns]

    def read() -> str:
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()

    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    return str(cached_json("hashes", f"file-{key}", read))


def convert(path: Path, folder: Path) -> GgufFile:
    """Dequantise a GGUF file into a folder of transformers: float32 safetensors, config, tokenizer with its
    template.

    What transformers' own reading of such files leaves out (width of a head, biases, rotary scaling, the end
    of a turn) is taken from the file.

    Raises:
        UsageError: see ``look``; an architecture or tokenizer that transformers can't read.
        CheckpointError: damage; tensors that the model wants and the file lacks.
    """
    import torch
    from transformers import AutoConfig, GgufConfig, PreTrainedTokenizerFast

    from llmfw.core.models.encoder_decoder import auto_class

    found = look(path)
    place: dict[str, Any] = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    with quiet(), _silent():
        try:
            config: Any = AutoConfig.from_pretrained(**place)
            tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(**place)
        except Exception as error:  # transformers raises many kinds
            raise UsageError(
                "GGUF-ARCHITECTURE",
                f"transformers can't read a GGUF file of a {found.architecture} ({_line(error)})", file=path,
                mend="use the model's HF folder", key="model.name",
            ) from error  # fmt: skip
        _correct(config, found)
        try:
            model, report = auto_class(config).from_pretrained(
                **place,
                config=config,
                quantization_config=GgufConfig(dequantize=True),
                dtype=torch.float32,
                output_loading_info=True,
            )
        except UsageError:
            raise
        except Exception as error:
            raise CheckpointError(
                "GGUF-DAMAGED",
                f"the tensors can't be read ({_line(error)})",
                file=path,
                mend="fetch it again",
            ) from error
        missing = sorted(report["missing_keys"])
        if missing:
            raise CheckpointError(
                "GGUF-DAMAGED",
                f"{len(missing)} tensors of the model aren't in it, e.g. {missing[0]}",
                file=path,
                mend="use the model's HF folder",
            )
        left = found.values - len(found.factors) - sum(one.numel() for one in model.parameters())
        if left > 0:
            _log.warning(
                "%s: %d values have no place in a %s and were left out", path, left, config.model_type
            )
        tokenizer.model_max_length = getattr(config, "max_position_embeddings", tokenizer.model_max_length)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    _drop_added(folder / "tokenizer.json", config.get_text_config().vocab_size)
    return found


def _correct(config: Any, found: GgufFile) -> None:
    """Set what the file says and transformers doesn't read."""
    width = found.get("attention.key_length")
    if width and getattr(config, "head_dim", None) not in (None, width):
        config.head_dim = width
    if found.biased and config.model_type == "llama":
        config.attention_bias = True
    turn, end = found.fields.get("tokenizer.ggml.eot_token_id"), config.eos_token_id
    if isinstance(turn, int) and isinstance(end, int) and turn != end:
        config.eos_token_id = [end, turn]
    rope = _rope(config, found)
    if rope is not None:
        config.rope_parameters = {**config.rope_parameters, **rope}


def _rope(config: Any, found: GgufFile) -> dict[str, Any] | None:
    """Rotary scaling that the file asks for, in transformers' words.

    Raises:
        UsageError: of a kind that can't be said in them.
    """
    kind = found.get("rope.scaling.type")
    if found.factors:
        return _llama3(config, found)
    if kind in (None, "none") or found.architecture == "gpt-oss":
        return None
    if kind == "linear":
        return {"rope_type": "linear", "factor": float(found.get("rope.scaling.factor"))}
    if kind == "yarn":
        length = found.get("rope.scaling.original_context_length")
        return {
            "rope_type": "yarn",
            "factor": float(found.get("rope.scaling.factor")),
            "original_max_position_embeddings": length,
        }
    raise _no_rope(f"rotary scaling {kind!r}", found)


def _llama3(config: Any, found: GgufFile) -> dict[str, Any]:
    """The settings whose frequencies are those of the file: it holds only by what each is divided."""
    tried = {**LLAMA3, "factor": max(found.factors)}
    ours = rope_factors(config, tried)
    if len(ours) != len(found.factors) or any(abs(a - b) > 1e-3 * b for a, b in zip(ours, found.factors)):
        raise _no_rope("these rotary factors", found)
    return tried


def rope_factors(config: Any, scaling: Mapping[str, Any]) -> list[float]:
    """By what Llama 3's scaling divides each of the D / 2 rotary frequencies of a config."""
    import torch
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaled = copy(config)
    scaled.rope_parameters = {**config.rope_parameters, **scaling}
    frequencies, _ = ROPE_INIT_FUNCTIONS["llama3"](scaled, torch.device("cpu"))
    width = len(frequencies)
    plain = 1.0 / config.rope_parameters["rope_theta"] ** (torch.arange(width, dtype=torch.float32) / width)
    return [float(value) for value in plain / frequencies]


def _no_rope(what: str, found: GgufFile) -> UsageError:
    return UsageError(
        "GGUF-ROPE", f"{what} of a {found.architecture} can't be read from a GGUF file", file=found.path,
        mend="use the model's HF folder", key="model.name",
    )  # fmt: skip


def _drop_added(path: Path, size: int) -> None:
    """Take out tokens with ids beyond the model's: the loader adds GPT-2's end of text where it's absent."""
    made = json.loads(path.read_text(encoding="utf-8"))
    kept = [one for one in made["added_tokens"] if one["id"] < size]
    if len(kept) < len(made["added_tokens"]):
        made["added_tokens"] = kept
        path.write_text(json.dumps(made, ensure_ascii=False), encoding="utf-8")


@contextmanager
def _silent() -> Iterator[None]:
    # the loader's own bar is tqdm's and knows no switch; there is one bar already
    with contextlib.redirect_stderr(io.StringIO()):
        yield


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
