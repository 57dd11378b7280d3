"""A model cut up over processes by FSDP2: cutting, running, reading and filling it.

Each parameter of a sharded module is a ``DTensor`` that holds this process's rows. It's whole for the length
of a block's own call, so whatever reads parameters has to run inside a call of the root: see ``inside``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from llmfw.core.models.adapters import bare

T = TypeVar("T")
_RESHARDS = "_llmfw_reshards"
"""Attribute of a sharded root: whether its blocks let go of the others' rows after each call."""
_WHOLE = "_llmfw_whole"
"""Attribute of a sharded root whose parameters ``gathered`` holds whole. A call within its call (as ``logps``
makes to find the head) would end with its parts let go, and one process alone can't get them back.
"""


def shard(module: nn.Module, mesh: Any) -> None:
    """Cut every parameter of ``module`` into one piece per process of ``mesh``, in place: one unit for each
    block of the architecture, one for the rest (embeddings, last norm, head, however they're tied).

    All processes hold the same module beforehand. The sums of half-precision gradients are taken in float32.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    half = any(p.requires_grad and p.dtype in (torch.bfloat16, torch.float16) for p in module.parameters())
    precision = MixedPrecisionPolicy(reduce_dtype=torch.float32 if half else None)
    model: Any = bare(module)
    # a router's logits leave their block beside its output: its weights must be there in the backward pass
    reshards = not getattr(model.config.get_text_config(), "output_router_logits", False)
    names = set(getattr(model, "_no_split_modules", None) or ())
    for block in [part for part in module.modules() if type(part).__name__ in names]:
        fully_shard(block, mesh=mesh, reshard_after_forward=reshards, mp_policy=precision)
    plain = module.forward

    @wraps(plain)
    def forward(*args: Any, inside: Callable[[], Any] | None = None, **kwargs: Any) -> Any:
        return plain(*args, **kwargs) if inside is None else inside()

    module.forward = forward
    fully_shard(module, mesh=mesh, mp_policy=precision)
    object.__setattr__(module, _RESHARDS, reshards)


def is_sharded(module: Any) -> bool:
    """Whether ``shard`` cut it up."""
    return hasattr(module, _RESHARDS)


def inside(module: nn.Module, function: Callable[[], T]) -> T:
    """``function()`` as a call of ``module``: where that is sharded, its own parameters are whole meanwhile,
    and gradients find their way through what the function returns.
    """
    if not is_sharded(module) or getattr(module, _WHOLE, False):
        return function()
    result: T = module(inside=function)
    return result


@contextmanager
def gathered(*modules: nn.Module) -> Iterator[None]:
    """Whole parameters on every process for the length of the block, for work without gradients that the
    processes don't do in step. All of them enter it; modules that aren't sharded are left alone.
    """
    units: list[tuple[Any, bool]] = []
    counted: list[tuple[list[Any], int]] = []
    for module in modules:
        if not is_sharded(module):
            continue
        with torch.no_grad():
            inside(module, lambda: None)  # the first call settles which unit is the root
        own = [part for part in module.modules() if hasattr(part, "unshard")]
        units += [(part, bool(getattr(module, _RESHARDS)) and part is not module) for part in own]
        root: Any = module
        order = root._get_fsdp_state()._comm_ctx.post_forward_order
        counted.append((order, len(order)))
        object.__setattr__(module, _WHOLE, True)
    try:
        for unit, _ in units:
            unit.set_reshard_after_forward(False, recurse=False)
            unit.unshard()
        yield
    finally:
        for module in modules:
            if is_sharded(module):
                object.__setattr__(module, _WHOLE, False)
        for unit, reshards in units:
            unit.set_reshard_after_forward(reshards, recurse=False)
            unit.reshard()
        for order, length in counted:  # FSDP2 prefetches backwards along the forwards it saw: forget these
            for group in order[length:]:
                group._post_forward_indices.pop()
            del order[length:]


def piece(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """The whole tensor on the CPU; every process takes part."""
    value = tensor.detach()
    return (value.full_tensor() if isinstance(value, DTensor) else value).cpu()


def whole_state(
    module: nn.Module, wanted: Callable[[str, Tensor], bool], *, keep: bool
) -> Mapping[str, Tensor]:
    """A module's state by name. What is ``wanted(name, tensor)`` is whole and on the CPU; it's gathered one
    tensor after another, so a device never holds more than one of them. The rest is as it is.

    Every process takes part; only one with ``keep`` gets whole tensors. Tied names share one tensor.
    """
    state: dict[str, Tensor] = {}
    found: dict[int, Tensor] = {}
    for name, value in module.state_dict(keep_vars=True).items():
        if not isinstance(value, Tensor) or not wanted(name, value):
            state[name] = value
            continue
        if id(value) not in found:
            full = whole(value)
            found[id(value)] = full if keep else value
        state[name] = found[id(value)]
    return state


def like(value: Tensor, target: Tensor) -> Tensor:
    """``value``, which every process holds whole, cut up as ``target`` is."""
    if not isinstance(target, DTensor):
        return value
    return distribute_tensor(
        value.to(target.device), target.device_mesh, target.placements, src_data_rank=None
    )


@torch.no_grad()
def fill(target: Tensor, value: Tensor) -> None:
    """Copy ``value``, which every process holds whole, into ``target``."""
    piece(target).copy_(piece(like(value, target)))
