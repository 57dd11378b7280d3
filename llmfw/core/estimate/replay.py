"""How long a step's operators take: each distinct call is carried out on this machine, a few times.

A call is made on fresh tensors of the same shapes, strides and dtypes, so the kernel is the one that training
uses; what is too large for that is told by its FLOPs and bytes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry

from llmfw.core.estimate.ghost import Call, Spec
from llmfw.core.estimate.machine import Machine, now

LONGEST = 0.5
"""Seconds by FLOPs and bytes from which on a call isn't carried out."""
_LIST_BYTES = 64 * 2**20
"""Of a call over lists of tensors (an optimizer's), members are left out beyond this; its time is scaled."""
_TURNS = 7
_ATTENTION = "_scaled_dot_product_flash_attention_for_cpu"


@dataclass(frozen=True, kw_only=True)
class Timed:
    """Seconds of one call, and whether they were measured."""

    seconds: float
    measured: bool


def time_calls(
    calls: Iterable[Call], machine: Machine, *, budget: float, device: str = "cpu"
) -> dict[Call, Timed]:
    """The seconds of each distinct call: medians over turns through all of them, for ``budget`` seconds."""
    distinct = list(dict.fromkeys(calls))
    found: dict[Call, list[float]] = {}
    modelled = {call: roofline(call, machine) for call in distinct}
    todo = [call for call in distinct if modelled[call] < LONGEST]
    end = time.perf_counter() + budget
    for turn in range(_TURNS):
        for call in list(todo):
            if time.perf_counter() > end and (turn > 1 or found.get(call)):
                continue
            taken = _carry_out(call, device)
            if taken is None:
                todo.remove(call)
                found.pop(call, None)
            elif turn:  # the first one makes the kernel ready
                found.setdefault(call, []).append(taken)
        if time.perf_counter() > end:
            break
    return {
        call: Timed(seconds=statistics.median(found[call]), measured=True)
        if call in found
        else Timed(seconds=modelled[call], measured=False)
        for call in distinct
    }


def roofline(call: Call, machine: Machine) -> float:
    """Seconds by the machine's rates: the longer of computing and moving."""
    return max(flops_of(call) / machine.gemm, call.bytes / machine.bandwidth)


def flops_of(call: Call) -> int:
    """FLOPs of matrix products, convolutions and attention; 0 of everything else.

    Attention counts as if nothing was masked: 4 B H T T D forward, and 2.5 times that backward.
    """
    packet = call.operator._overloadpacket
    name = call.operator.name()
    if _ATTENTION in name:
        backward = "backward" in name
        query, key = (call.args[1], call.args[2]) if backward else (call.args[0], call.args[1])
        batch, heads, length, width = query.shape
        forward = 4 * batch * heads * length * key.shape[2] * width
        return int(forward * 5 // 2 if backward else forward)
    formula = flop_registry.get(packet)
    if formula is None:
        return 0
    shapes = [torch.Size(value.shape) if isinstance(value, Spec) else value for value in call.args]
    kwargs = {key: value for key, value in call.kwargs if not isinstance(value, (Spec, torch.dtype))}
    with suppress(Exception):  # an overload with other arguments: its time is measured all the same
        return int(formula(*shapes, **kwargs))
    return 0


def total_flops(calls: Mapping[Call, int]) -> int:
    """FLOPs of all calls."""
    return sum(count * flops_of(call) for call, count in calls.items())


def _carry_out(call: Call, device: str) -> float | None:
    """Seconds of one call on fresh tensors; None where it can't be made alone."""
    args, kwargs, share = shortened(call)
    try:
        made = [_real(value, device) for value in args]
        named = {name: _real(value, device) for name, value in kwargs}
        with torch.no_grad():
            start = now(device)
            call.operator(*made, **named)
            return (now(device) - start) / share
    except Exception:  # values decide whether it works (an index, a probability), and these are made up
        return None


def shortened(call: Call) -> tuple[tuple[Any, ...], tuple[tuple[str, Any], ...], float]:
    """(args, kwargs, the share of the whole that they are): lists of tensors cut where they're very large."""
    lists = [value for value in (*call.args, *(value for _, value in call.kwargs)) if _is_list(value)]
    whole = sum(spec.bytes for value in lists for spec in value)
    if not lists or whole <= _LIST_BYTES or len({len(value) for value in lists}) != 1:
        return call.args, call.kwargs, 1.0
    kept = size = 0
    sizes = [sum(value[index].bytes for value in lists) for index in range(len(lists[0]))]
    order = sorted(range(len(sizes)), key=lambda index: sizes[index])
    middle = order[len(order) // 4 :] + order[: len(order) // 4]  # not the smallest ones alone
    chosen: list[int] = []
    for index in middle:
        if kept and size + sizes[index] > _LIST_BYTES:
            break
        chosen.append(index)
        kept, size = kept + 1, size + sizes[index]

    def cut(value: Any) -> Any:
        return tuple(value[index] for index in chosen) if _is_list(value) else value

    return tuple(map(cut, call.args)), tuple((name, cut(value)) for name, value in call.kwargs), size / whole


def _is_list(value: Any) -> bool:
    return isinstance(value, tuple) and bool(value) and all(isinstance(part, Spec) for part in value)


def _real(value: Any, device: str) -> Any:
    """A tensor of a form; numbers small and alike, indices 0, masks open."""
    if isinstance(value, Spec):
        made = torch.empty_strided(value.shape, value.stride, dtype=value.dtype, device=device)
        return made.fill_(0.01 if value.dtype.is_floating_point else int(value.dtype == torch.bool))
    if isinstance(value, tuple):
        return [_real(part, device) for part in value]
    return torch.device(device) if isinstance(value, torch.device) else value
