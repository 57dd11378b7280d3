"""What a forward pass doesn't keep for the backward pass, which makes it again.

``layers``: all inside a block (transformers' gradient checkpointing): the least memory, for one more forward
pass.
``elementwise``: the outputs of norms and of the gated products in MLPs, which cost a pass over memory; matrix
products and attention are kept. Either way the numbers are those of a run that keeps everything, to the bit.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import nn

from llmfw.core.errors import UsageError
from llmfw.core.models.adapters import bare
from llmfw.core.models.checkpointing import check_layers
from llmfw.core.models.encoder_decoder import is_encoder_decoder
from llmfw.core.models.fused import Fused
from llmfw.core.models.fused_functions import remembering
from llmfw.core.models.policy import decoder_of


class _Open(threading.local):
    """The scopes of the forward passes under way in this thread, innermost last."""

    def __init__(self) -> None:
        self.scopes: list[remembering | None] = []


_open = _Open()


def recompute(module: nn.Module, policy: str, fused: Fused) -> None:
    """Let forward passes of ``module`` that need gradients keep what ``policy`` (none, elementwise, layers)
    says.

    Raises:
        UsageError: RECOMPUTE, where nothing of what ``elementwise`` makes again is known in this model;
            CHECKPOINTING, where its layers can't be made again whole.
    """
    model: Any = bare(module)
    if policy == "layers":
        check_layers(model)
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if policy != "elementwise":
        return
    if not (fused.counts["norms"] or fused.counts["gated MLPs"]):
        raise UsageError(
            "RECOMPUTE",
            f"{type(model).__name__} has no RMSNorm or gated MLP that could be made again by itself",
            mend="set trainer.recompute=layers, and leave trainer.fused at auto",
            key="trainer.recompute",
        )
    stacks = [decoder_of(model)]
    if is_encoder_decoder(model.config):
        stacks.append(model.get_encoder())
    for stack in stacks:
        stack.register_forward_pre_hook(_begin)
        stack.register_forward_hook(_end, always_call=True)


def _begin(_stack: nn.Module, _given: Any) -> None:
    scope = remembering() if torch.is_grad_enabled() else None
    _open.scopes.append(scope)
    if scope is not None:
        scope.__enter__()


def _end(_stack: nn.Module, _given: Any, _made: Any) -> None:
    scope = _open.scopes.pop()
    if scope is not None:
        scope.__exit__(None, None, None)
