"""Whether a module is an RMSNorm, and which: found by trying it."""

from __future__ import annotations

import inspect
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from llmfw.core.models import fused_kernels as eager
from llmfw.core.models.fused_kernels import NormKind

_ROWS = 4
_DTYPES = (torch.float32, torch.bfloat16, torch.float64)


def find_norm(part: nn.Module) -> tuple[NormKind, str] | None:
    """(kind, name of the weight) of the RMSNorm whose answers are those of ``part`` to the bit, in float32,
    bfloat16 and float64; None where there is none.
    """
    own: Any = part
    weights = list(part.named_parameters(recurse=False))
    if (
        len(weights) != 1
        or weights[0][1].dim() != 1
        or list(part.children())
        or any(True for _ in part.buffers())
    ):
        return None
    name, weight = weights[0]
    if not weight.is_floating_point() or not _takes_one(type(part)):
        return None
    given = [value for value in vars(own).values() if isinstance(value, float) and 0 <= value < 1]
    tests = [torch.randn(_ROWS, weight.shape[0], device=weight.device).to(dtype) for dtype in _DTYPES]
    kept, drawn = weight.data, torch.randn_like(weight)
    try:
        weight.data = drawn  # ones, or zeros, would hide how the weight is used
        answers = [own(x) for x in tests]
        for eps, offset, wide, first in product(given, (0.0, 1.0), (torch.float32, None), (True, False)):
            kind = NormKind(eps=eps, offset=offset, wide=wide, cast_first=first)
            if all(_same(eager.norm(x, weight, kind)[0], y) for x, y in zip(tests, answers, strict=True)):
                return kind, name
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError):
        return None  # it wants something else than one tensor
    finally:
        weight.data = kept
    return None


def _same(ours: Any, theirs: Any) -> bool:
    return isinstance(theirs, Tensor) and theirs.dtype == ours.dtype and torch.equal(ours, theirs)


def _takes_one(own: type[Any]) -> bool:
    parameters = list(inspect.signature(own.forward).parameters.values())
    return len(parameters) == 2 and parameters[1].kind is parameters[1].POSITIONAL_OR_KEYWORD
