"""One format each: written, loaded again without llmfw, and compared with the model in llmfw."""

from __future__ import annotations

import gc
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmfw.core.assemble import Assembled
from llmfw.core.errors import CheckpointError
from llmfw.core.export.options import SHARD, ExportOptions
from llmfw.core.export.place import check_space
from llmfw.core.export.prompts import FIXED
from llmfw.core.models.adapters import bare, is_adapter_parameter
from llmfw.core.models.export import (
    BASE,
    Base,
    base_of,
    weight_bytes,
    write_adapter,
    write_base,
    write_generation_config,
    write_model,
    write_sidecars,
)
from llmfw.core.models.plain import (
    Agreement,
    Answers,
    ask,
    compare,
    digest,
    load_plain,
    load_plain_adapter,
    rounding_bound,
)
from llmfw.core.models.saved_weights import SavedWeights
from llmfw.core.models.source import ModelSource, resolve_model
from llmfw.core.models.usage import Format

_WHOLE = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
"""GGUF types that are plain roundings, as dtypes."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """One export while it's made."""

    options: ExportOptions
    found: SavedWeights
    source: ModelSource
    """With the settings under which llmfw runs these weights: dtype and attention. A base that was held in
    fewer bits is meant as it's stored.
    """
    format: Format
    merge: bool
    dtype: str
    """Of what is written."""
    out: Path
    assembled: Assembled
    surgeries: list[Any]
    """(plugin, surgery) of the plugins that are on."""
    prompts: list[list[int]]
    asked: str
    """What the prompts are."""
    notes: list[str]
    quantization: str = "none"
    """How the base was held while the adapter was trained."""
    quantized: Answers | None = None
    """What the model said that was trained over a quantised base."""

    @property
    def gguf_type(self) -> str:
        """The type of a GGUF file's matrices."""
        return self.options.gguf_type or "f16"


@dataclass(frozen=True, kw_only=True)
class Written:
    """What one format's writer leaves."""

    agreement: Agreement
    parameters: int
    model_type: str
    encoder_decoder: bool
    base: Base | None = None
    adapter: dict[str, Any] | None = None
    """PEFT's config."""
    file: str | None = None
    """A GGUF file's name."""
    sidecars: Sequence[str] = ()
    quantized_difference: float | None = None
    """max |logit difference| to the model over the quantised base."""


def write_hf_folder(work: Work, held: list[Any], answers: Answers, place: Path) -> Written:
    """Whole weights as transformers loads them; merged first where an adapter was trained. ``held`` gives up
    the model, so that one at a time is in memory.
    """
    built = _whole(work, held)
    left = _write_whole(work, built, place)
    sidecars = write_sidecars(work.source, built, place, left)
    facts = _facts(built.module)
    expected = digest(bare(built.module), work.dtype, left)
    del built
    gc.collect()
    settings = work.source.model
    plain = load_plain(place, dtype=work.dtype, attention=settings.attention, code=settings.trust_remote_code)
    if digest(plain, work.dtype) != expected:
        raise _disagrees(work, "a weight in the files differs from the one in memory")
    found = compare(answers, ask(plain, work.prompts, answers.tokens), _bound(work, answers, work.dtype))
    _judge(work, found)
    check_tokenizer(work, place)
    return Written(
        agreement=found, sidecars=sidecars, quantized_difference=_to_quantized(work, plain), **facts
    )


def write_adapter_folder(work: Work, held: list[Any], answers: Answers, place: Path) -> Written:
    """The adapter as it was saved; its base too where it exists nowhere else."""
    from llmfw.core.models.configs import base_model
    from llmfw.core.models.fetch import local_folder

    own = held.pop()
    base = base_of(work.source, work.options.base)
    below = resolve_model(base_model(work.source))
    named = below.kind in ("hub", "folder")
    if not named:  # to be compared, plain transformers needs it as a folder
        check_space(work.out, weight_bytes(own.module, work.source.model.dtype))
        write_base(own, place / BASE, max_shard_size=work.options.max_shard_size or SHARD)
    write_adapter(work.source, place, base)
    sidecars = write_sidecars(work.source, None, place, ())
    write_generation_config(own.module, place)
    work.assembled.tokenizer.save_pretrained(place)
    facts = _facts(own.module)
    del own
    gc.collect()
    settings = work.source.model
    plain = load_plain(
        local_folder(below) if named else place / BASE,
        dtype=settings.dtype,
        attention=settings.attention,
        code=settings.trust_remote_code,
    )
    plain = load_plain_adapter(plain, place)
    found = compare(answers, ask(plain, work.prompts, answers.tokens), 0.0)
    _judge(work, found)
    check_tokenizer(work, place)
    if not named and not base.written:
        shutil.rmtree(place / BASE)
    config = json.loads((place / "adapter_config.json").read_text(encoding="utf-8"))
    return Written(
        agreement=found,
        base=base,
        adapter=config,
        sidecars=sidecars,
        quantized_difference=_to_quantized(work, plain),
        **facts,
    )


def write_gguf_file(work: Work, held: list[Any], answers: Answers, place: Path) -> Written:
    """One file, made from a folder of transformers that goes again."""
    from transformers import GgufConfig

    from llmfw.core.models.gguf import write_gguf

    built = _whole(work, held)
    folder = place / work.out.name  # its name becomes the model's name in the file
    _write_whole(work, built, folder)
    rounded = _WHOLE.get(work.gguf_type)
    facts = _facts(built.module)
    expected = digest(bare(built.module), rounded) if rounded else None
    del built
    gc.collect()
    file = f"{work.out.name}-{work.gguf_type}.gguf"
    write_gguf(folder, place / file, dtype=work.gguf_type)
    shutil.rmtree(folder)
    plain = load_plain(place, dtype="float32", quantization=GgufConfig(dequantize=True), gguf=file)
    if rounded and digest(plain, rounded) != expected:
        raise _disagrees(work, "a weight in the file differs from the one in memory")
    bound = _bound(work, answers, rounded or "bfloat16")
    found = compare(answers, ask(plain, work.prompts, answers.tokens), bound)
    _judge(work, found)
    return Written(agreement=found, file=file, quantized_difference=_to_quantized(work, plain), **facts)


def check_tokenizer(work: Work, place: Path) -> None:
    """Compare the tokenizer in the folder, loaded without llmfw, with the run's own.

    Raises:
        CheckpointError: EXPORT-CHECK, it gives other ids, or has another template.
    """
    from transformers import AutoTokenizer

    from llmfw.core.models.talk import quiet

    own, auto = work.assembled.tokenizer, AutoTokenizer
    with quiet():
        plain: Any = auto.from_pretrained(
            place, local_files_only=True, trust_remote_code=work.source.model.trust_remote_code
        )
    same = all(plain(text)["input_ids"] == own(text)["input_ids"] for text in FIXED)
    if not same or plain.chat_template != own.chat_template or plain.eos_token_id != own.eos_token_id:
        raise _disagrees(work, "its tokenizer gives other ids")


def _whole(work: Work, held: list[Any]) -> Any:
    """The model without PEFT."""
    from llmfw.core.models.merge import merge_adapter

    if not work.merge:
        return held.pop()
    held.clear()
    gc.collect()
    return merge_adapter(work.source, work.surgeries, dtype=work.source.model.dtype)


def _write_whole(work: Work, built: Any, folder: Path) -> tuple[str, ...]:
    """Weights, configs and tokenizer; returns the names that plain transformers has no place for."""
    width = 2 if work.format == "gguf" else 1  # folder and file lie side by side for a while
    check_space(work.out, width * weight_bytes(built.module, work.dtype))
    left = write_model(built, folder, dtype=work.dtype, max_shard_size=work.options.max_shard_size or SHARD)
    work.assembled.tokenizer.save_pretrained(folder)
    return left


def _to_quantized(work: Work, plain: Any) -> float | None:
    """How far the export is from the model over the quantised base, where there was one."""
    if work.quantized is None:
        return None
    return compare(work.quantized, ask(plain, work.prompts, work.quantized.tokens), None).difference


def _facts(module: Any) -> dict[str, Any]:
    """What the card says of the model, an adapter's own parameters left out."""
    model = bare(module)
    own = (value for name, value in model.named_parameters() if not is_adapter_parameter(name))
    return {
        "parameters": sum(value.numel() for value in own),
        "model_type": model.config.model_type,
        "encoder_decoder": bool(getattr(model.config, "is_encoder_decoder", False)),
    }


def _bound(work: Work, answers: Answers, dtype: str) -> float:
    """What the logits may differ by: nothing, or what rounding explains."""
    same = not work.merge and dtype == work.source.model.dtype and work.format == "hf"
    return 0.0 if same else rounding_bound(dtype, answers.scale)


def _judge(work: Work, found: Agreement) -> None:
    if math.isnan(found.difference):
        raise _disagrees(work, "its logits are not numbers")
    if not found.holds:
        raise _disagrees(
            work, f"its logits differ by {found.difference:.3g}, allowed is {found.bound or 0.0:.3g}"
        )


def _disagrees(work: Work, what: str) -> CheckpointError:
    return CheckpointError(
        "EXPORT-CHECK",
        f"the export, loaded without llmfw, isn't the model that was trained: {what}",
        mend="nothing was kept; use the run through llmfw, and report the model's type",
        file=work.out,
    )
