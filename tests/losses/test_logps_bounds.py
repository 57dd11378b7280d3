"""How far float32, bfloat16 and float16 may be from float64 on the same (rounded) inputs, value by value."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from llmfw.losses.logps import token_logps
from tests.losses.test_logps import naive

VALUES = 5e-6
"""Of a log-prob, which is float32 whatever the inputs are: absolute, where logits are below 16."""
ROUNDING = {torch.float32: 2**-23, torch.bfloat16: 2**-8, torch.float16: 2**-11}
"""Of an entry of a gradient: one rounding to its dtype, relative to the entry ..."""
SUMS = 4e-6
"""... and float32 sums, relative to the largest entry."""
SMALLEST = 2**-24
"""... and float16's smallest number."""


def inputs(dtype: torch.dtype) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(5)
    tokens, width, vocabulary = 50, 96, 700
    return {
        "hidden": torch.randn(tokens, width, generator=draw).to(dtype),
        "weight": (torch.randn(vocabulary, width, generator=draw) / 5).to(dtype),
        "bias": torch.randn(vocabulary, generator=draw).to(dtype),
        "target": torch.randint(vocabulary, (tokens,), generator=draw),
        "signal": torch.randn(tokens, generator=draw),
    }


def wide(found: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value if name == "target" else value.detach().double() for name, value in found.items()}


def check_gradients(ours: Tensor, right: Tensor, dtype: torch.dtype) -> None:
    assert ours.dtype == dtype
    allowed = ROUNDING[dtype] * right.abs() + SUMS * right.abs().max() + SMALLEST
    assert bool(((ours.double() - right).abs() <= allowed).all())


@pytest.mark.parametrize("dtype", list(ROUNDING), ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize(
    "form",
    [
        {}, {"bias": True}, {"softcap": 5.0}, {"scale": 0.3}, {"frozen": True},
        {"bias": True, "softcap": 5.0, "scale": 1.4}, {"frozen": True, "softcap": 5.0, "bias": True},
    ],
    ids=lambda form: " ".join(form) or "plain",
)  # fmt: skip
@pytest.mark.parametrize(("chunk", "block"), [(None, None), (7, 100)])
def test_values_and_gradients_are_within_the_bounds(
    dtype: torch.dtype, form: dict[str, Any], chunk: int | None, block: int | None
) -> None:
    settings = dict(form)
    frozen, biased = settings.pop("frozen", False), settings.pop("bias", False)
    wanted = ["hidden"] if frozen else ["hidden", "weight", "bias"] if biased else ["hidden", "weight"]
    low, high = inputs(dtype), wide(inputs(dtype))
    for found in (low, high):
        for name in wanted:
            found[name].requires_grad_()
    got = token_logps(
        low["hidden"], low["weight"], low["target"],
        bias=low["bias"] if biased else None, chunk=chunk, block=block, **settings,
    )  # fmt: skip
    want = naive(
        high["hidden"], high["weight"], high["target"], high["bias"] if biased else None,
        settings.get("softcap"), settings.get("scale", 1.0),
    )  # fmt: skip
    assert got.dtype == torch.float32
    assert float((got.double() - want).detach().abs().max()) <= VALUES
    ours = torch.autograd.grad(got, [low[name] for name in wanted], low["signal"])
    right = torch.autograd.grad(want, [high[name] for name in wanted], high["signal"])
    for mine, exact in zip(ours, right, strict=True):
        check_gradients(mine, exact, dtype)


@pytest.mark.parametrize("dtype", list(ROUNDING), ids=lambda dtype: str(dtype).removeprefix("torch."))
def test_a_tied_weight_adds_both_uses_up_within_the_bounds(dtype: torch.dtype) -> None:
    """The embedding's gradient is added in the weight's dtype: one rounding more."""
    grads = []
    for found, logps in ((inputs(dtype), token_logps), (wide(inputs(dtype)), naive)):
        weight = found["weight"].requires_grad_()
        ids = torch.arange(50) * 3
        out = logps(found["hidden"] * weight[ids], weight, found["target"])
        grads.append(torch.autograd.grad(out, weight, found["signal"].to(out.dtype))[0])
    mine, exact = grads[0].double(), grads[1]
    # the product of states and embedding is rounded too, so errors are relative to the largest entry
    assert float((mine - exact).abs().max()) <= 4 * ROUNDING[dtype] * float(exact.abs().max()) + 4 * SUMS
