"""What stands between a decoder's matrix products, as few passes over memory as it takes: RMSNorm, the gated
product of an MLP, rotary positions, each forward and backward.

Pure functions of tensors without autograd: ``fused_functions`` gives them their gradients, ``regions``
compiles them. The forward passes take their operations in the order in which transformers takes them, so that
their results are the same to the bit; temporaries are written over in place.

Shapes: N tokens (any leading dimensions of a model laid end to end), D width, I width of an MLP, H heads, E
width of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "relu")


@dataclass(frozen=True, kw_only=True)
class NormKind:
    """y = (offset + weight) * x / sqrt(mean(x^2) + eps) (RMSNorm, arXiv 1910.07467).

    ``wide``: the dtype in which it's computed; None: that of x. ``cast_first``: the normalised x goes back to
    the dtype of x before it's multiplied by the weight, whose dtype may widen it (Llama); else after (Gemma).
    """

    eps: float
    offset: float = 0.0
    wide: torch.dtype | None = torch.float32
    cast_first: bool = True


def norm(x: Tensor, weight: Tensor, kind: NormKind) -> tuple[Tensor, Tensor]:
    """(y [N, D], 1 / sqrt(mean(x^2) + eps) [N, 1] in the wide dtype) of x [N, D] and weight [D]."""
    wide = x if kind.wide is None else x.to(kind.wide)
    scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + kind.eps)
    return normed(x, weight, scale, kind), scale


def normed(x: Tensor, weight: Tensor, scale: Tensor, kind: NormKind) -> Tensor:
    """y of ``norm`` again, from the scale that it gave."""
    wide = x if kind.wide is None else x.to(kind.wide)
    y = wide * scale
    if kind.cast_first:
        y, factor = y.to(x.dtype), _factor(weight, kind)
    else:
        factor = _factor(weight if kind.wide is None else weight.to(kind.wide), kind)
    y = y.mul_(factor) if factor.dtype == y.dtype else factor * y
    return y if kind.cast_first else y.to(x.dtype)


def norm_input_grad(grad: Tensor, x: Tensor, weight: Tensor, scale: Tensor, kind: NormKind) -> Tensor:
    """Gradient of x [N, D]: with u = grad * (offset + weight), scale * u - x * scale^3 * mean(u * x)."""
    wide = x if kind.wide is None else x.to(kind.wide)
    if kind.cast_first:
        inner = (grad * _factor(weight, kind)).to(x.dtype).to(wide.dtype)
    else:
        inner = grad.to(wide.dtype) * _factor(weight.to(wide.dtype), kind)
    mean = (inner * wide).mean(-1, keepdim=True)
    return inner.mul_(scale).addcmul_(wide, mean.mul_(scale.pow(3)), value=-1).to(x.dtype)


def norm_weight_grad(grad: Tensor, x: Tensor, scale: Tensor, weight: Tensor, kind: NormKind) -> Tensor:
    """Gradient of weight [D]: the sum over tokens of grad * x * scale."""
    wide = x if kind.wide is None else x.to(kind.wide)
    alike = grad.dtype == wide.dtype == weight.dtype
    if alike and grad.is_cpu and not torch.is_autocast_enabled("cpu"):
        found: Tensor = (grad * wide).mT @ scale[:, 0]  # a matrix by a vector: no third array of its size
        return found
    y = wide * scale
    return (grad * (y.to(x.dtype) if kind.cast_first else y)).sum(0).to(weight.dtype)


def gated(gate: Tensor, up: Tensor, activation: str) -> Tensor:
    """activation(gate) * up, [N, I]."""
    return activate(gate, activation).mul_(up)


def gated_grads(grad: Tensor, gate: Tensor, up: Tensor, activation: str) -> tuple[Tensor, Tensor]:
    """Gradients of gate and up, [N, I] each."""
    of_up = activate(gate, activation).mul_(grad)
    return _activation_grad(grad * up, gate, activation), of_up


def activate(gate: Tensor, activation: str) -> Tensor:
    """activation(gate), one of ``ACTIVATIONS``, in memory of its own."""
    if activation == "silu":
        return torch.nn.functional.silu(gate)
    if activation == "relu":
        return torch.relu(gate)
    return torch.nn.functional.gelu(gate, approximate="tanh" if activation == "gelu_tanh" else "none")


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [..., E] turned by its positions: x * cos + (-x_2, x_1) * sin, x_1 and x_2 the halves of E
    (arXiv 2104.09864, the halves laid as GPT-NeoX has them). cos and sin broadcast against x.
    """
    half = x.shape[-1] // 2
    y = x * cos
    y[..., :half].sub_(x[..., half:] * sin[..., :half])
    y[..., half:].add_(x[..., :half] * sin[..., half:])
    return y


def rotated_grad(grad: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Gradient of ``rotated``'s x: the transpose of the same turn."""
    half = grad.shape[-1] // 2
    found = grad * cos
    found[..., :half].add_(grad[..., half:] * sin[..., half:])
    found[..., half:].sub_(grad[..., :half] * sin[..., :half])
    return found


def _factor(weight: Tensor, kind: NormKind) -> Tensor:
    return weight + kind.offset if kind.offset else weight


def _activation_grad(grad: Tensor, gate: Tensor, activation: str) -> Tensor:
    """grad * activation'(gate), written over ``grad`` where that saves a pass."""
    if torch.compiler.is_compiling():
        return _activation_grad_apart(grad, gate, activation)
    if activation == "silu":
        found: Tensor = torch.ops.aten.silu_backward.grad_input(grad, gate, grad_input=grad)
    elif activation == "relu":
        found = torch.ops.aten.threshold_backward.grad_input(grad, gate, 0, grad_input=grad)
    else:
        found = torch.ops.aten.gelu_backward.grad_input(
            grad, gate, approximate="tanh" if activation == "gelu_tanh" else "none", grad_input=grad
        )
    return found


def _activation_grad_apart(grad: Tensor, gate: Tensor, activation: str) -> Tensor:
    if activation == "silu":
        found: Tensor = torch.ops.aten.silu_backward(grad, gate)
    elif activation == "relu":
        found = torch.ops.aten.threshold_backward(grad, gate, 0)
    else:
        found = torch.ops.aten.gelu_backward(
            grad, gate, approximate="tanh" if activation == "gelu_tanh" else "none"
        )
    return found


@dataclass(frozen=True, eq=False)
class Kernels:
    """What replaced modules call; a copy of a module calls the same."""

    norm: Callable[[Tensor, Tensor, NormKind], tuple[Tensor, Tensor]]
    norm_input_grad: Callable[[Tensor, Tensor, Tensor, Tensor, NormKind], Tensor]
    gated: Callable[[Tensor, Tensor, str], Tensor]
    gated_grads: Callable[[Tensor, Tensor, Tensor, str], tuple[Tensor, Tensor]]
    rotated: Callable[[Tensor, Tensor, Tensor], Tensor]
    rotated_grad: Callable[[Tensor, Tensor, Tensor], Tensor]

    def __deepcopy__(self, memo: Any) -> Kernels:
        return self


EAGER = Kernels(norm, norm_input_grad, gated, gated_grads, rotated, rotated_grad)
"""The functions as they stand here."""
