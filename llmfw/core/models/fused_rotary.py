"""Whether an attention turns its queries and keys by a function that ``rotary`` can stand in for.

The function is one of the attention's module, not of the attention; so the attention gets a forward of the
same code that finds ours under that name.
"""

from __future__ import annotations

import inspect
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from llmfw.core.models import fused_kernels as eager
from llmfw.core.models.fused_functions import rotary


def find_rotary(own: type[Any]) -> str | None:
    """The name under which the forward of a class calls a function (q [B, H, T, E], k, cos [B, T, E], sin)
    that turns q and k as ``fused_kernels.rotated`` does, to the bit; None where it calls none.
    """
    forward = own.forward
    if not isinstance(forward, FunctionType) or hasattr(forward, "__wrapped__"):
        return None
    found = []
    for name in forward.__code__.co_names:
        called = forward.__globals__.get(name)
        if isinstance(called, FunctionType) and _named(called) and _turns(called):
            found.append(name)
    return found[0] if len(found) == 1 else None


def turning_with(own: type[Any], kernels: Any) -> Any:
    """The forward of ``own`` with ``rotary`` over ``kernels`` in place of what ``find_rotary`` found."""
    forward, name = own.forward, find_rotary(own)
    assert name is not None
    theirs = forward.__globals__[name]

    def turn(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *more: Any, **named: Any) -> Any:
        usual = not more and not named and cos.dim() == 3 and not cos.requires_grad
        if not usual or not all(_fits(x, cos, sin) for x in (q, k)):
            return theirs(q, k, cos, sin, *more, **named)
        return rotary(q, cos, sin, kernels), rotary(k, cos, sin, kernels)

    space = {**forward.__globals__, name: turn}
    made = FunctionType(forward.__code__, space, forward.__name__, forward.__defaults__, forward.__closure__)
    made.__kwdefaults__ = forward.__kwdefaults__
    made.__doc__, made.__annotations__ = forward.__doc__, forward.__annotations__
    return made


def _fits(x: Tensor, cos: Tensor, sin: Tensor) -> bool:
    alike = x.dtype == cos.dtype == sin.dtype and cos.shape == sin.shape
    return alike and x.dim() == 4 and cos.shape[0] in (1, x.shape[0]) and cos.shape[1:] == x.shape[2:]


def _named(called: FunctionType) -> bool:
    names = list(inspect.signature(called).parameters)
    return len(names) >= 4 and names[2:4] == ["cos", "sin"]


@torch.no_grad()
def _turns(called: FunctionType) -> bool:
    for dtype in (torch.float32, torch.bfloat16):
        q, k = torch.randn(2, 3, 5, 8).to(dtype), torch.randn(2, 1, 5, 8).to(dtype)
        cos, sin = torch.randn(2, 5, 8).to(dtype), torch.randn(2, 5, 8).to(dtype)
        try:
            turned = called(q, k, cos, sin)
        except (RuntimeError, TypeError, ValueError, IndexError):
            return False
        ours = [eager.rotated(x, cos[:, None], sin[:, None]) for x in (q, k)]
        if not isinstance(turned, tuple) or len(turned) != 2:
            return False
        if not all(isinstance(y, Tensor) and torch.equal(x, y) for x, y in zip(ours, turned, strict=True)):
            return False
    return True
