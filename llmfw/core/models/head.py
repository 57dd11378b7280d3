"""The language-model head: from last hidden states to log-probs, fast where the head is plain, right in
any case.

What a model does between its last hidden state and its logits (a bias, a scale, a soft cap) differs by
architecture.
The candidates below are tried against the model's own logits once; the one that reproduces them is used.
Where none
does, the model's own forward is, which is slow and needs [B, T, V] memory, and a warning says so.

Shapes: N trained tokens, D width, V vocabulary, P probed positions.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from llmfw.core.models.encoder_decoder import is_encoder_decoder
from llmfw.core.models.rng import global_state, restore_state
from llmfw.losses.logps import chunk_rows, token_logps

_log = logging.getLogger(__name__)
_PROBED = 16
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 4e-2, torch.float16: 1e-2}


@dataclass(frozen=True, kw_only=True)
class Head:
    """Logits are: ``cap(scale * (module(hidden) + bias))``; cap(z) = softcap * tanh(z / softcap)."""

    module: nn.Module
    scale: float = 1.0
    softcap: float | None = None
    bias: Tensor | None = None
    """[V] constant of the model beside the module (BART's ``final_logits_bias``)."""

    @property
    def used(self) -> nn.Module:
        """The module that answers now: of a head that PEFT trains in full its copy, or the original where the
        adapter is off.
        """
        wrapper: Any = self.module
        if type(wrapper).__name__ != "ModulesToSaveWrapper" or wrapper._forward_hooks:
            return self.module
        active = wrapper.active_adapters
        on = not wrapper.disable_adapters and active and active[0] in wrapper.modules_to_save
        found: nn.Module = wrapper.modules_to_save[active[0]] if on else wrapper.original_module
        return found

    @property
    def plain(self) -> bool:
        """Whether the module is one untouched linear layer, whose weight may be used directly."""
        return _plain(self.used)

    @property
    def low_rank(self) -> tuple[nn.Linear, tuple[Tensor, Tensor, float] | None] | None:
        """Of a linear layer with PEFT's plain LoRA the layer itself and (A [R, D], B [V, R], factor), with
        None in place of these where the adapter is off; None where what answers now is anything else.

        Plain is: one adapter that is on, nothing merged, no dropout at work, no bias of its own, no variant
            (DoRA
        and others), no hook and no replaced forward anywhere inside.
        """
        module: Any = self.used
        kind = f"{type(module).__module__}.{type(module).__name__}"
        if kind != "peft.tuners.lora.layer.Linear" or module.merged or not _untouched(module):
            return None
        base = module.base_layer
        if not _plain(base) or module.fan_in_fan_out:
            return None
        if module.disable_adapters:
            return base, None
        names = [name for name in module.active_adapters if name in module.lora_A]
        if not names:
            return base, None
        name = names[0]
        dropout = module.lora_dropout[name]
        silent = isinstance(dropout, nn.Identity) or (
            type(dropout) is nn.Dropout and (not dropout.training or dropout.p == 0)
        )
        down, up = module.lora_A[name], module.lora_B[name]
        parts = _plain(down) and _plain(up) and down.bias is None and up.bias is None
        if len(names) > 1 or name in module.lora_variant or not (silent and _untouched(dropout) and parts):
            return None
        return base, (down.weight, up.weight, float(module.scaling[name]))

    def logits(self, hidden: Tensor) -> Tensor:
        """[N, D] -> [N, V], in float32 or wider."""
        raw = self.module(hidden) if self.bias is None else self.module(hidden) + self.bias
        logits: Tensor = raw if raw.dtype == torch.float64 else raw.float()
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    def logps(self, hidden: Tensor, target: Tensor) -> Tensor:
        """[N] log-probs of ``target`` [N] from ``hidden`` [N, D], with one chunk's logits alive at a time."""
        module = self.used
        found = (module, None) if self.plain else self.low_rank
        if found is not None:
            linear, low_rank = found
            assert isinstance(linear, nn.Linear)
            bias: Tensor | None = linear.bias
            if self.bias is not None:
                bias = self.bias if bias is None else bias + self.bias
            return token_logps(
                hidden,
                linear.weight,
                target,
                bias=bias,
                low_rank=low_rank,
                softcap=self.softcap,
                scale=self.scale,
            )
        size = getattr(module, "out_features", None) or _width(module)
        rows = self._rows(hidden, size, buffers=3)
        # at least one chunk, so that a batch that trains nothing still has a graph through the head
        parts = [
            checkpoint(
                self._chunk, hidden[start : start + rows], target[start : start + rows], use_reentrant=False
            )
            for start in range(0, max(1, hidden.shape[0]), rows)
        ]
        return torch.cat(parts)

    @torch.no_grad()
    def best(self, hidden: Tensor) -> Tensor:
        """[N] ids of the largest logits of ``hidden`` [N, D], with one chunk's logits alive at a time."""
        size = getattr(self.module, "out_features", None) or _width(self.module)
        rows = self._rows(hidden, size, buffers=1)
        parts = [
            self.logits(hidden[start : start + rows]).argmax(1) for start in range(0, hidden.shape[0], rows)
        ]
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64, device=hidden.device)

    @staticmethod
    def _rows(hidden: Tensor, vocabulary: int, *, buffers: int) -> int:
        tokens, width = hidden.shape
        return chunk_rows(tokens, vocabulary, width=width, buffers=buffers, device=hidden.device.type)

    def _chunk(self, hidden: Tensor, target: Tensor) -> Tensor:
        return gather_logps(self.logits(hidden), target)


def _untouched(module: nn.Module) -> bool:
    """Whether calling the module is what its class says: no hooks, no own forward, no parametrization."""
    hooked = module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__
    return not hooked and not hasattr(module, "parametrizations")


def _plain(module: nn.Module) -> bool:
    return type(module) is nn.Linear and _untouched(module)


def gather_logps(logits: Tensor, target: Tensor) -> Tensor:
    """[N] log-probs of ``target`` from [N, V] logits: logit minus log-sum-exp, in float32 or wider."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return wide.gather(1, target[:, None])[:, 0] - torch.logsumexp(wide, dim=1)


def candidates(model: Any) -> list[Head]:
    """Heads that a model may have, by its config: the plain one, and those with the scales and caps that
    families use.
    """
    module = model.get_output_embeddings()
    if module is None:
        return []
    config = model.config.get_text_config()
    scales = [1.0]
    for name in ("logit_scale", "logits_scaling", "lm_head_multiplier"):
        value = getattr(config, name, None)
        if isinstance(value, (int, float)) and value not in (0, 1):
            scales += [float(value), 1.0 / float(value)]
    width = getattr(
        config, "dim_model_base", None
    )  # MiniCPM and others divide the hidden state by width / base width
    if isinstance(width, int) and width:
        scales.append(width / config.hidden_size)
    if is_encoder_decoder(model.config) and getattr(config, "hidden_size", None):
        scales.append(config.hidden_size**-0.5)  # T5 with a tied head
    constant = getattr(model, "final_logits_bias", None)
    bias = constant.flatten() if isinstance(constant, Tensor) else None
    cap = getattr(config, "final_logit_softcapping", None) or getattr(config, "logits_soft_cap", None)
    caps: list[float | None] = [None] if not cap else [None, float(cap)]
    return [
        Head(module=module, scale=scale, softcap=softcap, bias=bias) for softcap in caps for scale in scales
    ]


@torch.no_grad()
def find_head(model: Any, decoder: nn.Module, inputs: Mapping[str, Any]) -> Head | None:
    """The candidate that reproduces the model's own logits on the first row of ``inputs``; None where
    none does.

    The model is run once in evaluation mode; its training mode and the global random generators stay as
    they were.
    """
    tried = candidates(model)
    seen: list[Tensor] = []
    row = _first_row(inputs)
    state, modes = global_state(), [(part, part.training) for part in model.modules()]
    watch = decoder.register_forward_hook(lambda _module, _args, output: seen.append(output[0]))
    try:
        model.eval()
        if "logits_to_keep" in inspect.signature(model.forward).parameters:
            row["logits_to_keep"] = _PROBED  # a long row's logits could be larger than the model
        logits = model(**row).logits[0]
        count = min(_PROBED, logits.shape[0])
        hidden, logits = seen[-1][0, -count:], logits[-count:].float()
        usable = logits.isfinite().all(1)  # padding that attends to nothing may be anything
        hidden, logits = hidden[usable], logits[usable]
        best: tuple[float, Head | None] = (float("inf"), None)
        for head in tried if bool(usable.any()) else ():
            wrong = float((head.logits(hidden).float() - logits).abs().max())
            best = min(best, (wrong, head), key=lambda pair: pair[0])
        allowed = _TOLERANCE.get(hidden.dtype, 1e-4) * max([1.0, *logits.abs().amax(1).tolist()])
    finally:
        watch.remove()
        for part, mode in modes:
            part.training = mode
        restore_state(state)
    if best[1] is not None and best[0] <= allowed:
        return best[1]
    _log.warning(
        "%s: unknown head; log-probs come from its own logits, with memory for batch x time x vocabulary",
        type(model).__name__,
    )
    return None


def beginning(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The first tokens of a row without padding, and no spans: what a head makes of a state doesn't depend on
    which tokens that state has seen, and a row of a whole batch is as much work as a step's.
    """
    tokens = inputs["input_ids"].shape[1]
    return {
        name: value[:, :_PROBED]
        if isinstance(value, Tensor) and value.dim() > 1 and value.shape[1] == tokens
        else value
        for name, value in inputs.items()
        if name != "spans"
    }


def _first_row(inputs: Mapping[str, Any]) -> dict[str, Any]:
    rows = inputs["input_ids"].shape[0]
    return {
        name: value[:1] if isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] == rows else value
        for name, value in inputs.items()
        if name != "output_router_logits"
    }


def _width(module: nn.Module) -> int:
    weight = getattr(module, "weight", None)
    return int(weight.shape[0]) if isinstance(weight, Tensor) and weight.dim() == 2 else 65536
