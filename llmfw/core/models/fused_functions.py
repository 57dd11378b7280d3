"""The kernels of ``fused_kernels`` with their gradients: each keeps for the backward pass what it was given
and nothing that it can make again.

Where recomputation is on (``remembering``), a product's input that one of these functions made isn't kept
either: its recipe is, and the backward pass makes it again from what is kept anyway.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from llmfw.core.models.fused_kernels import EAGER, Kernels, NormKind, norm_weight_grad, normed

_SMALL = 16
"""Fewer tokens than this many, plus one, aren't worth a compiled kernel's call (and 1 would be a graph of its
own): answers are generated token by token.
"""


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, kind: NormKind, kernels: Kernels
    ) -> tuple[Tensor, Tensor]:
        y, scale = kernels.norm(x, weight, kind)
        ctx.save_for_backward(x, weight, scale)
        ctx.kind, ctx.kernels = kind, kernels
        ctx.mark_non_differentiable(scale)
        ctx.set_materialize_grads(False)
        return y, scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, _scale: None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return None, None, None, None
        x, weight, scale = ctx.saved_tensors
        grad = grad.contiguous()
        of_x = of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight = norm_weight_grad(grad, x, scale, weight, ctx.kind)
        if ctx.needs_input_grad[0]:
            of_x = ctx.kernels.norm_input_grad(grad, x, weight, scale, ctx.kind)
        return of_x, of_weight, None, None


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, activation: str, kernels: Kernels) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.activation, ctx.kernels = activation, kernels
        found: Tensor = kernels.gated(gate, up, activation)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gate, up = ctx.saved_tensors
        of_gate, of_up = ctx.kernels.gated_grads(grad.contiguous(), gate, up, ctx.activation)
        return of_gate, of_up, None, None


class _Rotated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, kernels: Kernels) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.kernels = kernels
        found: Tensor = kernels.rotated(x, cos, sin)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return ctx.kernels.rotated_grad(grad.contiguous(), cos, sin), None, None, None


def rms_norm(x: Tensor, weight: Tensor, kind: NormKind, kernels: Kernels = EAGER) -> Tensor:
    """``fused_kernels.norm`` of x [..., D] along its last dimension; keeps x and one number a token."""
    flat = x.reshape(-1, x.shape[-1])
    used = _used(kernels, flat.shape[0])
    y, scale = _Norm.apply(flat, weight, kind, used)  # type: ignore[no-untyped-call]  # torch's own
    found: Tensor = y.view(x.shape)
    _remember(found, (flat, weight, scale), lambda x, weight, scale: normed(x, weight, scale, kind))
    return found


def gated_product(gate: Tensor, up: Tensor, activation: str, kernels: Kernels = EAGER) -> Tensor:
    """activation(gate) * up, [..., I]; keeps gate and up."""
    flat, beside = gate.reshape(-1, gate.shape[-1]), up.reshape(-1, up.shape[-1])
    used = _used(kernels, flat.shape[0])
    made = _Gated.apply(flat, beside, activation, used)  # type: ignore[no-untyped-call]  # torch's own
    found: Tensor = made.view(gate.shape)
    _remember(found, (flat, beside), lambda gate, up: used.gated(gate, up, activation))
    return found


def rotary(x: Tensor, cos: Tensor, sin: Tensor, kernels: Kernels = EAGER) -> Tensor:
    """x [B, H, T, E] turned by cos and sin [1 or B, T, E]; keeps cos and sin, which all layers share."""
    batch, heads, length, width = x.shape
    tokens = x.transpose(1, 2).reshape(batch * length, heads, width)
    angles = [
        (part if part.shape[0] == batch else part.expand(batch, -1, -1)).reshape(batch * length, 1, width)
        for part in (cos, sin)
    ]
    used = _used(kernels, batch * length)
    turned: Tensor = _Rotated.apply(tokens, *angles, used)  # type: ignore[no-untyped-call]  # torch's own
    return turned.view(batch, length, heads, width).transpose(1, 2)


def _used(kernels: Kernels, tokens: int) -> Kernels:
    return kernels if tokens > _SMALL else EAGER


# --- made again instead of kept ----------------------------------------------------------------------


class _Recipe:
    """How a tensor is made again. ``packed`` times it was to be kept: the last to ask lets go of it."""

    def __init__(self, given: tuple[Tensor, ...], make: Callable[..., Tensor]) -> None:
        self._given = tuple(part.detach() for part in given)
        self._versions = tuple(part._version for part in self._given)
        self._make = make
        self._made: Tensor | None = None
        self.packed = 0

    def made(self) -> Tensor:
        """The tensor.

        Raises:
            RuntimeError: what it is made of was written over since.
        """
        if self._versions != tuple(part._version for part in self._given):
            raise RuntimeError(
                "a tensor that the backward pass needs was modified in place; set trainer.recompute=none"
            )
        found = self._made
        if found is None:
            with torch.no_grad():
                found = self._make(*self._given)
        self.packed -= 1
        self._made = found if self.packed > 0 else None
        return found


class _Kept(threading.local):
    """The recipes of the forward pass under way in this thread, by address; None: all is kept."""

    recipes: dict[int, tuple[weakref.ref[Tensor], _Recipe]] | None = None


_kept = _Kept()


class remembering(torch.autograd.graph.saved_tensors_hooks):  # noqa: N801  # a context, like its base
    """For the length of the block, outputs of ``rms_norm`` and ``gated_product`` are kept as recipes."""

    def __init__(self) -> None:
        super().__init__(_pack, _unpack)

    def __enter__(self) -> None:
        self._before, _kept.recipes = _kept.recipes, {}
        super().__enter__()

    def __exit__(self, *error: object) -> None:
        _kept.recipes = self._before
        super().__exit__(*error)


def _remember(made: Tensor, given: tuple[Tensor, ...], make: Callable[..., Tensor]) -> None:
    if _kept.recipes is not None and made.requires_grad:
        _kept.recipes[made.data_ptr()] = (weakref.ref(made), _Recipe(given, make))


def _pack(kept: Tensor) -> Any:
    """A recipe for what is the whole of a remembered tensor under any shape, else the tensor itself. The
    reference is weak: the address of one that is gone may be another's.
    """
    recipes = _kept.recipes
    found = recipes.get(kept.data_ptr()) if recipes else None
    if found is None:
        return kept
    alive, recipe = found[0](), found[1]
    if alive is None or alive.numel() != kept.numel() or alive.dtype != kept.dtype:
        return kept
    if not kept.is_contiguous() or kept.untyped_storage()._cdata != alive.untyped_storage()._cdata:
        return kept
    recipe.packed += 1
    return recipe, kept.shape


def _unpack(kept: Any) -> Tensor:
    if isinstance(kept, Tensor):
        return kept
    recipe, shape = kept
    found: Tensor = recipe.made().view(shape)
    return found
