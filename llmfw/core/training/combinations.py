"""What can't be trained together, told by the settings alone: refused before a model's config is read."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from importlib.util import find_spec

from llmfw.core.errors import LlmfwError, ResourceError, UsageError
from llmfw.core.models.quantize import check_frozen, require_bitsandbytes
from llmfw.core.schema import Root, TrainerConfig
from llmfw.core.training.deepspeed import refuse_deepspeed

_FLASH = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_3"}
"""Attention implementation -> the module it comes from."""


def check_combinations(root: Root, *, training: bool) -> None:
    """Refuse settings of model, adapter, optimizer and precision that can't work together.

    Raises:
        UsageError, ConflictError, ResourceError: the first such combination, naming its key.
    """
    for wrong in _wrong(root, training):
        raise wrong


def on_cpu(trainer: TrainerConfig) -> bool:
    """Whether a training with these settings runs on the CPU of this machine."""
    import torch

    if trainer.accelerator == "cpu":
        return True
    return not torch.cuda.is_available() and not torch.backends.mps.is_available()


def _wrong(root: Root, training: bool) -> Iterator[LlmfwError]:
    if root.model.quantization != "none":
        require_bitsandbytes("model.quantization")
    yield from _attention(root, training)
    if not training:
        return
    if root.trainer.strategy == "deepspeed":
        refuse_deepspeed()
    check_frozen(root.model, root.adapter)
    if root.optimizer.name != "adamw":
        require_bitsandbytes("optimizer.name")
    yield from _adapter(root)
    yield from _precision(root)


def _adapter(root: Root) -> Iterator[LlmfwError]:
    for name in ("use_dora", "use_rslora", "modules_to_save"):
        if getattr(root.adapter, name) and root.adapter.kind == "none":
            yield UsageError(
                "ADAPTER",
                "it has no effect without an adapter",
                mend="set adapter.kind=lora, or leave it out",
                key=f"adapter.{name}",
            )


def _precision(root: Root) -> Iterator[LlmfwError]:
    if root.trainer.precision != "16-mixed":
        return
    if on_cpu(root.trainer):
        yield UsageError(
            "PRECISION",
            "16-mixed needs a GPU: on the CPU nothing computes in float16 (Lightning would take bfloat16)",
            mend="set trainer.precision=bf16-mixed",
            key="trainer.precision",
        )
    in_full = root.adapter.kind == "none" or root.adapter.modules_to_save
    if root.model.dtype == "float16" and in_full:
        yield UsageError(
            "PRECISION",
            "16-mixed scales the gradients of float32 weights, and these are in float16",
            mend="set model.dtype=float32",
            key="model.dtype",
        )


def _attention(root: Root, training: bool) -> Iterator[LlmfwError]:
    wanted = root.model.attention
    if "/" in wanted:
        return  # code from the hub: refused where it isn't trusted, when the config is read
    known = _known_attention()
    if wanted not in known:
        near = get_close_matches(wanted, known, n=2)
        yield UsageError(
            "ATTENTION",
            f"transformers has no attention {wanted!r}",
            mend=f"did you mean {' or '.join(near)}?" if near else "use sdpa or eager",
            key="model.attention",
        )
    if wanted in _FLASH:
        if find_spec(_FLASH[wanted]) is None:
            yield ResourceError(
                "ATTENTION",
                f"{wanted} needs the package {_FLASH[wanted].replace('_', '-')} and a GPU",
                mend="install it, or set model.attention=sdpa",
                key="model.attention",
            )
        if training and root.model.dtype == "float32" and root.trainer.precision == "32-true":
            yield UsageError(
                "ATTENTION",
                f"{wanted} computes in 16 bits, the model in 32",
                mend="set trainer.precision=bf16-mixed, or model.attention=sdpa",
                key="model.attention",
            )
    if wanted == "flex_attention" and training and on_cpu(root.trainer):
        yield UsageError(
            "ATTENTION",
            "flex_attention has no backward pass on the CPU",
            mend="set model.attention=sdpa",
            key="model.attention",
        )


def _known_attention() -> list[str]:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    return ["eager", *ALL_ATTENTION_FUNCTIONS.valid_keys()]
