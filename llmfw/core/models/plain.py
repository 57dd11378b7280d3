"""Models as plain transformers and PEFT load them, and how far what they say is from what ours said."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import math
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llmfw.core.errors import CheckpointError
from llmfw.core.models.names import plain_name
from llmfw.core.models.talk import quiet

NEW_TOKENS = 16
"""Greedy tokens that are compared after each prompt."""
ROUNDING: Mapping[str, float] = {
    "float32": 1e-4,
    "float16": 5e-2,
    "bfloat16": 0.25,
}
"""Largest difference of logits, as a share of the largest logit, that rounding the weights to a dtype (or
merging in it) may bring. That no weight was lost or changed is checked apart, by ``digest``.
"""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a model says to prompts: logits over prompt and greedy tokens (T, V), and those tokens."""

    logits: Sequence[Tensor]
    """Of each prompt [T, V] float32; of an encoder-decoder model over the answer alone."""
    tokens: Sequence[Sequence[int]]

    @property
    def scale(self) -> float:
        """The largest logit, in absolute value."""
        return max((float(one.abs().max()) for one in self.logits if one.numel()), default=0.0)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How an export compares with the model that it was made from."""

    difference: float
    """Largest absolute difference of two logits."""
    bound: float | None
    """What it may be; None: it's measured and said, not judged."""
    tokens_equal: bool
    """Whether the greedy tokens are the same."""
    prompts: int
    positions: int
    """Positions over which logits were compared."""

    @property
    def holds(self) -> bool:
        """Whether the difference is a number within its bound."""
        return not math.isnan(self.difference) and (self.bound is None or self.difference <= self.bound)


def load_plain(
    folder: Path,
    *,
    dtype: str,
    attention: str | None = None,
    quantization: Any = None,
    gguf: str | None = None,
    code: bool = False,
) -> Any:
    """The model of a folder as a user's own ``from_pretrained`` gives it, in evaluation mode, on the CPU.

    Args:
        quantization: a ``quantization_config`` of transformers.
        gguf: a GGUF file in the folder, instead of its safetensors.
        code: run code that lies in the folder.

    Raises:
        CheckpointError: EXPORT-CHECK, it can't be loaded, or tensors are missing or left over.
    """
    import transformers

    keys: dict[str, Any] = {"dtype": getattr(torch, dtype), "local_files_only": True}
    keys |= {"attn_implementation": attention} if attention else {}
    keys |= {"quantization_config": quantization} if quantization is not None else {}
    keys |= {"gguf_file": gguf} if gguf else {"use_safetensors": True}
    keys |= {"trust_remote_code": True} if code else {}
    try:
        # the GGUF reader's own bar is tqdm's and knows no switch
        bar = contextlib.redirect_stderr(io.StringIO()) if gguf else contextlib.nullcontext()
        with quiet(), _hushed(), bar:
            config = transformers.AutoConfig.from_pretrained(
                folder,
                local_files_only=True,
                **({"gguf_file": gguf} if gguf else {}),
                **({"trust_remote_code": True} if code else {}),
            )
            auto: Any = (
                transformers.AutoModelForSeq2SeqLM
                if getattr(config, "is_encoder_decoder", False)
                else transformers.AutoModelForCausalLM
            )
            module, report = auto.from_pretrained(folder, output_loading_info=True, **keys)
    except Exception as error:  # transformers and safetensors raise many kinds
        raise _broken(folder, f"can't be loaded: {type(error).__name__}: {error}") from error
    wrong = sorted({*report["missing_keys"], *report["unexpected_keys"]})
    if wrong:
        raise _broken(folder, f"and model differ in {len(wrong)} tensors, e.g. {wrong[0]}")
    _settle(module)
    return module.eval()


def load_plain_adapter(base: Any, folder: Path) -> Any:
    """A folder's adapter over its base, as PEFT loads it.

    Raises:
        CheckpointError: EXPORT-CHECK, it can't be loaded.
    """
    with quiet():
        from peft import PeftModel

    try:
        with quiet(), _hushed():
            return PeftModel.from_pretrained(base, folder).eval()
    except Exception as error:  # PEFT raises many kinds
        raise _broken(folder, f"can't be loaded: {type(error).__name__}: {error}") from error


def ask(
    module: Any, prompts: Sequence[Sequence[int]], after: Sequence[Sequence[int]] | None = None
) -> Answers:
    """Greedy tokens of each prompt, and the logits over it and over ``after`` (None: its own tokens).

    Prompts go one by one, without padding, so equal weights give equal bits.
    """
    tokens = [_greedy(module, prompt) for prompt in prompts]
    logits = [
        _logits(module, prompt, follow)
        for prompt, follow in zip(prompts, tokens if after is None else after, strict=True)
    ]
    return Answers(logits=logits, tokens=tokens)


def compare(ours: Answers, theirs: Answers, bound: float | None) -> Agreement:
    """How far two models' answers to the same prompts, with the same tokens after them, are apart."""
    differences = [
        float((one - other).abs().max()) if one.shape == other.shape else math.inf
        for one, other in zip(ours.logits, theirs.logits, strict=True)
    ]
    lost = any(math.isnan(value) for value in differences)
    return Agreement(
        difference=math.nan if lost else max(differences, default=math.nan),
        bound=bound,
        tokens_equal=[list(one) for one in ours.tokens] == [list(one) for one in theirs.tokens],
        prompts=len(ours.logits),
        positions=sum(len(one) for one in ours.logits),
    )


def rounding_bound(dtype: str, scale: float) -> float:
    """What merging or rounding in a dtype may change of logits of this size."""
    return ROUNDING[dtype] * scale


def digest(module: nn.Module, dtype: str, without: Collection[str] = ()) -> str:
    """SHA-256 over names and values of a model's saved tensors, each rounded to ``dtype``; ``without`` are
    plain names that are left out.
    """
    wanted, sums = getattr(torch, dtype), hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if plain_name(name) in without:
            continue
        plain = value.detach().to(wanted) if value.is_floating_point() else value.detach()
        flat = plain.cpu().contiguous().reshape(-1)
        sums.update(f"{name}|{tuple(value.shape)}|".encode())
        sums.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
    return sums.hexdigest()


def _settle(module: Any) -> None:
    """Give every tensor memory of its own: tensors that lie in a mapped file aren't aligned as others are,
    and a processor's kernels may sum them in another order.
    """
    for named in (module.parameters(), module.buffers()):
        for value in named:
            if type(value.data) is Tensor:
                value.data = value.data.clone()


@torch.inference_mode()
def _greedy(module: Any, prompt: Sequence[int]) -> list[int]:
    ids = torch.tensor([list(prompt)], dtype=torch.int64, device=_device(module))
    with quiet(), _hushed():
        found = module.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            num_beams=1,
            max_new_tokens=NEW_TOKENS,
        )
    return [int(token) for token in found[0, 0 if _two_stacks(module) else len(prompt) :]]


@torch.inference_mode()
def _logits(module: Any, prompt: Sequence[int], follow: Sequence[int]) -> Tensor:
    device = _device(module)
    if _two_stacks(module):
        inputs = {
            "input_ids": torch.tensor([list(prompt)], device=device),
            "decoder_input_ids": torch.tensor([list(follow)], device=device),
        }
    else:
        inputs = {"input_ids": torch.tensor([[*prompt, *follow]], device=device)}
    logits: Tensor = module(**inputs, use_cache=False).logits
    return logits[0].float().cpu()


def _two_stacks(module: Any) -> bool:
    return bool(getattr(module.config, "is_encoder_decoder", False))


def _device(module: Any) -> torch.device:
    found: torch.device = next(iter(module.parameters())).device
    return found


@contextmanager
def _hushed() -> Iterator[None]:
    """Without what transformers and PEFT log below an error, and without their warnings."""
    loggers = [logging.getLogger(name) for name in ("transformers", "peft")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _broken(folder: Path, what: str) -> CheckpointError:
    return CheckpointError(
        "EXPORT-CHECK",
        f"what was written {' '.join(what.split())[:300]}",
        mend="nothing was kept; report this model's type, or use the run through llmfw",
        file=folder.name,
    )
