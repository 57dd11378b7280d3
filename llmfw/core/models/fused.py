"""Find in a model what the fused functions do, and let them do it: RMSNorms, gated MLPs, rotary positions.

Nothing is taken for what its name says. A module is watched while it answers, and is replaced only where the
fused function's answer is its own to the bit; whatever has hooks, a parametrisation or a forward of its own
is left alone, and so is what a surgery made or changed.

The replacement is the module's class: names, parameters, hooks that come later and copies stay what they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import nn

from llmfw.core.models.fused_functions import gated_product, rms_norm
from llmfw.core.models.fused_kernels import EAGER, Kernels
from llmfw.core.models.fused_mlp import GatedMlp, find_gated_mlp
from llmfw.core.models.fused_norm import find_norm
from llmfw.core.models.fused_rotary import find_rotary, turning_with
from llmfw.core.models.rng import private_rng

FOUND = "_llmfw_fused"
"""Attribute of a replaced module: what was found in it."""
KERNELS = "_llmfw_kernels"
"""Attribute of a replaced module: the kernels that it calls."""


@dataclass(frozen=True)
class Fused:
    """How many modules were replaced, by what they do, and those that were."""

    counts: Counter[str] = field(default_factory=Counter)
    modules: tuple[nn.Module, ...] = ()

    def __str__(self) -> str:
        return ", ".join(f"{count} {name}" for name, count in sorted(self.counts.items()))


class _FusedNorm:
    def forward(self: Any, x: Any) -> Any:
        kind, name = getattr(self, FOUND)
        return rms_norm(x, getattr(self, name), kind, getattr(self, KERNELS))


class _FusedMlp:
    def forward(self: Any, x: Any) -> Any:
        found: GatedMlp = getattr(self, FOUND)
        if not found.still_plain(self):
            return super().forward(x)  # type: ignore[misc]
        gate, up = found.halves(self, x)
        return getattr(self, found.down)(gated_product(gate, up, found.activation, getattr(self, KERNELS)))


@torch.no_grad()
def fuse(module: nn.Module, leave: Collection[nn.Module] = ()) -> Fused:
    """Replace what is found in ``module``, in place, and say what it was. Names of parameters, the training
    modes and the global random generators stay as they are; doing it twice is doing it once.

    Args:
        leave: modules that are left as they are, with all that is in them.
    """
    left = {id(part) for root in leave for part in root.modules()}
    counts: Counter[str] = Counter()
    replaced: list[nn.Module] = []
    known: dict[Any, Any] = {}
    with private_rng(0):
        for part in list(module.modules()):
            if id(part) in left or hasattr(part, FOUND) or not _plain(part):
                continue
            found = _look(part, known)
            if found is None:
                continue
            name, what, made = found
            object.__setattr__(part, FOUND, what)
            object.__setattr__(part, KERNELS, EAGER)
            part.__class__ = made
            counts[name] += 1
            replaced.append(part)
    return Fused(counts, tuple(replaced))


def use_kernels(fused: Fused, kernels: Kernels) -> None:
    """Let replaced modules call ``kernels``."""
    for part in fused.modules:
        object.__setattr__(part, KERNELS, kernels)
        if isinstance(what := getattr(part, FOUND), type):
            part.__class__ = _turning(what, kernels)


def _plain(part: Any) -> bool:
    hooked = (
        part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks
    )
    return not hooked and "forward" not in vars(part) and not hasattr(part, "parametrizations")


def _look(part: Any, known: dict[Any, Any]) -> tuple[str, Any, type] | None:
    """(what it's called, what was found, the class to be) of a module; None: it stays."""
    own: Any = type(part)
    likeness = _likeness(part)
    if likeness not in known:
        known[likeness] = _find(part)
    name, what = known[likeness]
    if name == "norms":
        return name, what, _class_of(own, _FusedNorm)
    if name == "gated MLPs":
        return name, what, _class_of(own, _FusedMlp)
    if name == "rotary attentions":
        return name, own, _turning(own, EAGER)
    return None


def _find(part: Any) -> tuple[str | None, Any]:
    if (kind := find_norm(part)) is not None:
        return "norms", kind
    if (mlp := find_gated_mlp(part)) is not None:
        return "gated MLPs", mlp
    if (name := find_rotary(type(part))) is not None:
        return "rotary attentions", name
    return None, None


def _likeness(part: Any) -> tuple[Any, ...]:
    """What two modules share that compute alike: the class, plain attributes, and children that do."""
    own = vars(part)
    plain = tuple(
        (key, value)
        for key, value in sorted(own.items())
        if isinstance(value, (int, float, str)) and key not in ("training", "layer_idx")
    )
    shapes = tuple(
        (name, parameter.shape, parameter.dtype) for name, parameter in part.named_parameters(recurse=False)
    )
    below = tuple((name, _likeness(child)) for name, child in part.named_children())
    return type(part), plain, shapes, below


@cache
def _class_of(own: Any, mixin: Any) -> type:
    """``own`` with the forward of ``mixin``, under its own name (libraries look classes up by it)."""
    about = {"__module__": own.__module__, "__qualname__": own.__qualname__, "__doc__": own.__doc__}
    return type(own.__name__, (mixin, own), about)


@cache
def _turning(own: Any, kernels: Kernels) -> type:
    """``own`` whose forward finds our rotary function under the name of its own."""
    about = {"__module__": own.__module__, "__qualname__": own.__qualname__, "__doc__": own.__doc__}
    return type(own.__name__, (own,), {**about, "forward": turning_with(own, kernels)})
