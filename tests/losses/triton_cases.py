"""The Triton kernels in Triton's interpreter against float64.

    TRITON_INTERPRET=1 python -m tests.losses.triton_cases OUT.json

A process of its own, because the variable must be set before triton is imported. Writes for each case the
largest error of the log-probs and of each gradient, relative to the largest entry (or 1, if that is more).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmfw.losses.logps import token_logps
from llmfw.losses.logps_head import Form, TiledHead
from llmfw.losses.logps_tiles import Tile

SHAPES = [(0, 3, 4), (1, 1, 1), (1, 16, 128), (5, 33, 7), (64, 32, 128), (70, 40, 300)]
"""(N, D, V): below, at and above a program's blocks of 64 tokens, 32 of width and 128 words."""
FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "capped": {"softcap": 3.0, "scale": 1.7, "bias": True},
    "tiled": {"chunk": 33, "block": 50, "bias": True},
    "frozen": {"frozen": True},
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def inputs(shape: tuple[int, int, int], dtype: torch.dtype) -> dict[str, Tensor]:
    tokens, width, vocabulary = shape
    draw = torch.Generator().manual_seed(tokens)
    return {
        "hidden": torch.randn(tokens, width, generator=draw).to(dtype),
        "weight": (torch.randn(vocabulary, width, generator=draw) / width**0.5).to(dtype),
        "bias": torch.randn(vocabulary, generator=draw).to(dtype),
        "target": torch.randint(vocabulary, (tokens,), generator=draw),
        "signal": torch.randn(tokens, generator=draw),
    }


def solve(found: dict[str, Tensor], form: dict[str, Any], kernel: str) -> dict[str, Tensor]:
    settings = dict(form)
    wanted = ["hidden"] if settings.pop("frozen", False) else ["hidden", "weight"]
    bias = found["bias"].clone() if settings.pop("bias", False) else None
    leaves = {name: found[name].clone().requires_grad_() for name in wanted}
    if bias is not None:
        leaves["bias"] = bias.requires_grad_()
    made = {**found, **leaves}
    logps = token_logps(made["hidden"], made["weight"], found["target"], bias=bias, kernel=kernel, **settings)  # type: ignore[arg-type]
    grads = torch.autograd.grad(logps, list(leaves.values()), found["signal"].to(logps.dtype))
    return {"logps": logps.detach(), **dict(zip(leaves, grads, strict=True))}


def off(ours: Tensor, right: Tensor) -> float:
    """Largest error, relative to the largest entry or 1."""
    if not right.numel():
        return 0.0
    return float((ours.double() - right).abs().max() / right.abs().max().clamp(min=1.0))


def native(dtype: torch.dtype) -> dict[str, float]:
    """The path of a GPU: half-precision operands in the kernels, flows written times the signal, rounded.

    Not for bfloat16: the interpreter keeps its numbers as 16-bit integers and multiplies these.
    """
    from llmfw.losses import logps_triton

    found = inputs((70, 40, 300), dtype)
    form = Form(
        softcap=3.0, scale=1.7, low_scale=1.0, compute=dtype, rounded=False, tile=Tile(rows=33, words=150),
        kernel="triton", group=None, first=0,
    )  # fmt: skip
    head = TiledHead(found["hidden"], found["weight"], found["target"], found["bias"], None, form)
    head.native, head.states = True, found["hidden"]
    wide = TiledHead(
        *(found[name].double() for name in ("hidden", "weight")), found["target"], found["bias"].double(),
        None, Form(**{**form.__dict__, "compute": torch.float64}),
    )  # fmt: skip
    ours, right = logps_triton.scan(head), wide.scan(pull=False)
    lse = right.total.log() + right.top
    errors = {
        "lse": off(ours.total.log() + ours.top, lse),
        "chosen": off(ours.chosen, right.chosen),
        "flow": 0.0,
    }
    signal = found["signal"]
    pairs = zip(logps_triton.flows(head, lse.float(), signal), wide.flows(lse, signal.double()), strict=True)
    for (part, _, _, mine), (same, _, _, full) in pairs:
        assert part == same and mine.dtype == dtype
        errors["flow"] = max(errors["flow"], off(mine, full * signal[part, None].double()))
    return errors


def main() -> None:
    results: dict[str, dict[str, float]] = {}
    for dtype_name, dtype in DTYPES.items():
        for shape in SHAPES:
            for name, form in FORMS.items():
                if name in ("tiled", "frozen") and shape not in SHAPES[3::2]:
                    continue
                found = inputs(shape, dtype)
                wide = {key: value if key == "target" else value.double() for key, value in found.items()}
                ours, right = solve(found, form, "triton"), solve(wide, form, "tiles")
                results[f"{dtype_name} {shape} {name}"] = {key: off(ours[key], right[key]) for key in right}
    results["native"] = native(torch.float16)
    Path(sys.argv[1]).write_text(json.dumps(results))


if __name__ == "__main__":
    main()
