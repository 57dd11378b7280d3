"""A frozen head: the states' gradient is made in the forward pass, the logits are never computed again."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from llmfw.losses.logps import token_logps
from tests.losses.test_logps import case, naive


class Products(TorchDispatchMode):
    """Counts matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("chunk", "block"), [(None, None), (1, 1), (2, 4), (3, 11), (7, 5)])
@pytest.mark.parametrize(("softcap", "scale"), [(None, 1.0), (2.5, 1.0), (3.0, 1.7)])
def test_values_and_gradients_equal_log_softmax_and_gather(
    chunk: int | None, block: int | None, softcap: float | None, scale: float
) -> None:
    hidden, weight, target, bias = case(7, 5, 11)
    weight, bias = weight.detach(), bias.detach()
    got = token_logps(
        hidden, weight, target, bias=bias, chunk=chunk, block=block, softcap=softcap, scale=scale
    )
    want = naive(hidden, weight, target, bias, softcap, scale)
    signal = torch.linspace(-1.0, 2.0, 7, dtype=torch.float64)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    (mine,), (right,) = (torch.autograd.grad(value, hidden, signal) for value in (got, want))
    torch.testing.assert_close(mine, right, rtol=0, atol=1e-12)


def test_two_products_a_tile_instead_of_three() -> None:
    """Two by three tiles: 12 products in the forward, none in the backward pass; without a gradient, 6."""
    hidden, weight, target, _ = case(6, 4, 9)
    with Products() as forward:
        got = token_logps(hidden, weight.detach(), target, chunk=3, block=3)
    with Products() as backward:
        got.sum().backward()
    assert (forward.count, backward.count) == (12, 0)
    with Products() as trained:
        token_logps(hidden, weight, target, chunk=3, block=3).sum().backward()
    assert trained.count == 6 + 3 * 6
    with torch.no_grad(), Products() as alone:
        token_logps(hidden, weight.detach(), target, chunk=3, block=3)
    assert alone.count == 6


def test_one_tensor_of_the_states_shape_is_saved() -> None:
    hidden, weight, target, _ = case(60, 16, 400, dtype=torch.float32)
    saved: list[tuple[int, ...]] = []

    def pack(value: Tensor) -> Tensor:
        saved.append(tuple(value.shape))
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        token_logps(hidden, weight.detach(), target, chunk=8)
    assert saved == [(60, 16)]


def test_a_nearly_certain_target_keeps_a_precise_gradient() -> None:
    """The weight is (1, -1) times 4, the state 1: d logp / d h = 8 (1 - p) = 8 / (1 + exp(8)) = 0.00268281...

    log p is the difference of two numbers near 4, rounded to steps of 2^-21: 8 times two steps are allowed.
    """
    hidden = torch.ones(1, 1, requires_grad=True)
    token_logps(hidden, torch.tensor([[4.0], [-4.0]]), torch.tensor([0])).sum().backward()
    assert hidden.grad is not None
    torch.testing.assert_close(hidden.grad.item(), 8 / (1 + math.exp(8)), rtol=0, atol=8 * 2**-20)


def test_no_token_at_all() -> None:
    hidden, weight, target, _ = case(0, 4, 9, dtype=torch.float32)
    token_logps(hidden, weight.detach(), target).sum().backward()
    assert hidden.grad is not None and hidden.grad.shape == (0, 4)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-10)])
def test_half_precision_states_get_a_gradient_rounded_once(dtype: torch.dtype, tolerance: float) -> None:
    hidden, weight, target, _ = case(40, 64, 300, dtype=dtype)
    wide = hidden.detach().double().requires_grad_()
    got = token_logps(hidden, weight.detach(), target, chunk=7)
    want = naive(wide, weight.detach().double(), target)
    got.sum().backward()
    want.sum().backward()
    assert hidden.grad is not None and wide.grad is not None and hidden.grad.dtype == dtype
    torch.testing.assert_close(hidden.grad.double(), wide.grad, rtol=tolerance, atol=1e-4)


def test_barred_words_change_nothing() -> None:
    """A bias of -inf takes words out, also a whole tile of them: as if there were only the others."""
    hidden, weight, target, _ = case(6, 4, 9)
    target = target % 3 + 6
    bias = torch.zeros(9, dtype=torch.float64)
    bias[:6] = -torch.inf
    for frozen in (True, False):
        head = weight.detach() if frozen else weight
        got = token_logps(hidden, head, target, bias=bias, chunk=4, block=3)
        want = naive(hidden, head[6:], target - 6)
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
        (mine,), (right,) = (torch.autograd.grad(value.sum(), hidden) for value in (got, want))
        torch.testing.assert_close(mine, right, rtol=0, atol=1e-12)
