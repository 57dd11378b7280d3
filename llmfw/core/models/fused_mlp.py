"""Whether a module is a gated MLP, down(activation(gate(x)) * up(x)): found by watching it answer.

Shapes: N tokens, D width, I width inside.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from llmfw.core.models import fused_kernels as eager

_ROWS = 4


@dataclass(frozen=True, kw_only=True)
class GatedMlp:
    """The names of a gated MLP's parts. ``up`` None: ``gate`` gives both, [N, 2I]; ``gate_first`` says which
    half is which.
    """

    gate: str
    up: str | None
    down: str
    activation: str
    """One of ``fused_kernels.ACTIVATIONS``."""
    own: str
    """The module's child that is the activation."""
    own_type: type
    gate_first: bool = True

    def still_plain(self, part: nn.Module) -> bool:
        """Whether the activation is what it was, with nobody listening."""
        own: Any = getattr(part, self.own)
        hooked = (
            own._forward_hooks or own._forward_pre_hooks or own._backward_hooks or own._backward_pre_hooks
        )
        return type(own) is self.own_type and not hooked and "forward" not in vars(own)

    def halves(self, part: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        """(gate, up) of x, made by the module's own children."""
        gate: Tensor = getattr(part, self.gate)(x)
        if self.up is not None:
            return gate, getattr(part, self.up)(x)
        first, second = gate.chunk(2, dim=-1)
        return (first, second) if self.gate_first else (second, first)


@dataclass
class _Call:
    name: str
    given: Tensor
    made: Tensor


def find_gated_mlp(part: nn.Module) -> GatedMlp | None:
    """The gated MLP whose answers are those of ``part`` to the bit; None where there is none. Its children
    are called as before, so they may be adapted, quantised or hooked.
    """
    children = dict(part.named_children())
    plain = [
        name for name, child in children.items() if not list(child.parameters()) and not list(child.buffers())
    ]
    if not 3 <= len(children) <= 5 or not plain or list(part.parameters(recurse=False)):
        return None
    if len(inspect.signature(type(part).forward).parameters) != 2:
        return None
    width = _width(part)
    if width is None:
        return None
    weight = next(part.parameters())
    dtype = weight.dtype if weight.is_floating_point() else torch.float32
    x = torch.randn(_ROWS, width, device=weight.device, dtype=dtype)
    modes = [(below, below.training) for below in part.modules()]
    try:
        part.eval()  # dropout would make one answer another
        calls, answer = _watch(part, x)
        found = _roles(calls, x, answer, children, plain)
        if found is None:
            return None
        gate, up = found.halves(part, x)
        ours = children[found.down](eager.gated(gate, up, found.activation))
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError):
        return None  # it wants something else than one tensor
    finally:
        for below, mode in modes:
            below.training = mode
    return found if torch.equal(ours, answer) else None


def _width(part: nn.Module) -> int | None:
    """D, by the first child that says what it takes."""
    for child in part.children():
        width = getattr(child, "in_features", None)
        if isinstance(width, int):
            return width
    return None


def _watch(part: nn.Module, x: Tensor) -> tuple[list[_Call], Tensor]:
    """Which child got and made what, in order, while ``part`` answered x."""
    calls: list[_Call] = []

    def note(name: str, _child: Any, given: tuple[Any, ...], made: Any) -> None:
        calls.append(_Call(name, given[0].clone(), made.clone()))

    watches = [child.register_forward_hook(partial(note, name)) for name, child in part.named_children()]
    try:
        return calls, part(x)
    finally:
        for watch in watches:
            watch.remove()


def _roles(
    calls: list[_Call], x: Tensor, answer: Any, children: dict[str, nn.Module], plain: list[str]
) -> GatedMlp | None:
    if not calls or not isinstance(answer, Tensor) or not torch.equal(calls[-1].made, answer):
        return None
    acts = [call for call in calls if call.name in plain and type(children[call.name]) is not nn.Dropout]
    first = [call for call in calls if call.name not in plain and _equal(call.given, x)]
    if len(acts) != 1 or len(calls) != len(first) + 2 or len(first) not in (1, 2):
        return None
    (act,), down = acts, calls[-1].name
    activation = _activation(children[act.name])
    if activation is None:
        return None
    own = {"activation": activation, "own": act.name, "own_type": type(children[act.name]), "down": down}
    if len(first) == 2:
        gates = [call for call in first if _equal(call.made, act.given)]
        if (
            len(gates) != 1 or first[0] is not gates[0]
        ):  # another order would draw an adapter's dropout otherwise
            return None
        return GatedMlp(gate=first[0].name, up=first[1].name, **own)  # type: ignore[arg-type]
    halves = first[0].made.chunk(2, dim=-1)
    which = [_equal(half, act.given) for half in halves]
    if sum(which) != 1:
        return None
    return GatedMlp(gate=first[0].name, up=None, gate_first=which[0], **own)  # type: ignore[arg-type]


def _equal(left: Tensor, right: Tensor) -> bool:
    return left.shape == right.shape and torch.equal(left, right)


def _activation(child: nn.Module) -> str | None:
    """Which of the known activations a module is, to the bit."""
    points = torch.cat([torch.linspace(-12, 12, 4001), torch.randn(4001)])
    for name in eager.ACTIVATIONS:
        if all(
            torch.equal(child(points.to(dtype)), eager.activate(points.to(dtype), name))
            for dtype in (torch.float32, torch.bfloat16)
        ):
            return name
    return None
