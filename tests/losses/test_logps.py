"""The log-prob primitive against ``log_softmax(logits).gather``: values, gradients, memory, dtypes, edges."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from llmfw.losses.logps import token_logps


def naive(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None = None,
    softcap: float | None = None,
    scale: float = 1.0,
) -> Tensor:
    logits = torch.nn.functional.linear(hidden, weight, bias) * scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return torch.log_softmax(logits, -1).gather(1, target[:, None])[:, 0]


def case(
    tokens: int, width: int, vocabulary: int, *, dtype: torch.dtype = torch.float64, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """hidden, weight, target, bias, all wanting gradients where they can."""
    draw = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, width, generator=draw, dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.randn(vocabulary, width, generator=draw, dtype=torch.float64).to(dtype).requires_grad_()
    bias = torch.randn(vocabulary, generator=draw, dtype=torch.float64).to(dtype).requires_grad_()
    return hidden, weight, torch.randint(vocabulary, (tokens,), generator=draw), bias


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation returned."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for item in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(item, Tensor):
                self.numel = max(self.numel, item.numel())
        return out


def test_a_value_worked_out_by_hand() -> None:
    """Width 1, weights 0 and ln 3, state 1: the probabilities are 1/4 and 3/4."""
    hidden, weight = torch.ones(2, 1), torch.tensor([[0.0], [math.log(3.0)]])
    got = token_logps(hidden, weight, torch.tensor([0, 1]))
    torch.testing.assert_close(got, torch.tensor([math.log(0.25), math.log(0.75)]))


@pytest.mark.parametrize(
    ("chunk", "block"), [(None, None), (1, 1), (2, 4), (3, 11), (7, 5), (100, 100), (4, None)]
)
@pytest.mark.parametrize(("softcap", "scale"), [(None, 1.0), (2.5, 1.0), (None, 0.0625), (3.0, 1.7)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_values_and_gradients_equal_log_softmax_and_gather(
    chunk: int | None, block: int | None, softcap: float | None, scale: float, with_bias: bool
) -> None:
    hidden, weight, target, bias = case(7, 5, 11)
    inputs = (hidden, weight, bias) if with_bias else (hidden, weight)
    signal = torch.linspace(-1.0, 2.0, 7, dtype=torch.float64)
    want = naive(hidden, weight, target, bias if with_bias else None, softcap, scale)
    extra = bias if with_bias else None
    got = token_logps(
        hidden, weight, target, bias=extra, chunk=chunk, block=block, softcap=softcap, scale=scale
    )
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    for ours, theirs in zip(
        torch.autograd.grad(got, inputs, signal), torch.autograd.grad(want, inputs, signal), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_float64_gradcheck(softcap: float | None) -> None:
    hidden, weight, target, bias = case(4, 3, 5)

    def call(h: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return token_logps(h, w, target, bias=b, chunk=3, softcap=softcap, scale=1.3)

    assert torch.autograd.gradcheck(call, (hidden, weight, bias))


@pytest.mark.parametrize(("tokens", "width", "vocabulary"), [(1, 1, 1), (1, 3, 2), (13, 1, 17), (3, 64, 5)])
def test_odd_shapes(tokens: int, width: int, vocabulary: int) -> None:
    hidden, weight, target, _ = case(tokens, width, vocabulary)
    got, want = token_logps(hidden, weight, target), naive(hidden, weight, target)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


def test_no_tensor_of_tokens_by_vocabulary_is_ever_alive() -> None:
    """60 tokens, 400 words, chunks of 8: nothing above the weight's 400 x 16; the naive way is caught."""
    hidden, weight, target, _ = case(60, 16, 400, dtype=torch.float32)
    with Largest() as plain:
        naive(hidden, weight, target).sum().backward()
    assert plain.numel >= 60 * 400
    with Largest() as ours:
        token_logps(hidden, weight, target, chunk=8).sum().backward()
    assert 8 * 400 <= ours.numel <= 400 * 16


def test_only_the_inputs_and_one_number_a_token_are_saved() -> None:
    hidden, weight, target, _ = case(60, 16, 400, dtype=torch.float32)
    saved: list[tuple[int, ...]] = []

    def pack(value: Tensor) -> Tensor:
        saved.append(tuple(value.shape))
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        token_logps(hidden, weight, target, chunk=8)
    assert sorted(saved) == sorted([(60, 16), (400, 16), (60,), (60,)])


def test_a_frozen_head_costs_no_gradient_of_its_own() -> None:
    hidden, weight, target, _ = case(60, 16, 400, dtype=torch.float32)
    with Made() as made:
        token_logps(hidden, weight.detach(), target, chunk=8).sum().backward()
    assert (400, 16) not in made.shapes
    with Made() as made:
        token_logps(hidden, weight, target, chunk=8).sum().backward()
    assert (400, 16) in made.shapes


class Made(TorchDispatchMode):
    """Remembers the shapes of tensors made from nothing, which is how the weight's gradient starts."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten.empty, torch.ops.aten.zeros, torch.ops.aten.new_zeros):
            self.shapes.add(tuple(out.shape))
        return out


def test_a_hidden_state_without_gradient_still_trains_the_head() -> None:
    hidden, weight, target, _ = case(6, 4, 9)
    token_logps(hidden.detach(), weight, target).sum().backward()
    (want,) = torch.autograd.grad(naive(hidden.detach(), weight, target).sum(), weight)
    torch.testing.assert_close(weight.grad, want, rtol=0, atol=1e-12)


def test_a_tied_head_collects_both_gradients() -> None:
    """The weight is embedding and head at once; its gradient is the sum over both uses."""
    _, weight, target, _ = case(6, 4, 9)
    ids = torch.tensor([0, 3, 3, 8, 1, 0])
    (got,) = torch.autograd.grad(token_logps(torch.tanh(weight[ids]), weight, target, chunk=4).sum(), weight)
    (want,) = torch.autograd.grad(naive(torch.tanh(weight[ids]), weight, target).sum(), weight)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


def test_no_token_at_all() -> None:
    hidden, weight, target, bias = case(0, 4, 9, dtype=torch.float32)
    got = token_logps(hidden, weight, target, bias=bias)
    assert got.shape == (0,) and got.dtype == torch.float32
    got.sum().backward()
    assert hidden.grad is not None and hidden.grad.shape == (0, 4)
    assert weight.grad is not None and not weight.grad.any()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 3e-2), (torch.float16, 4e-3)])
def test_half_precision_inputs_are_accumulated_in_float32(dtype: torch.dtype, tolerance: float) -> None:
    """Equal to float32 arithmetic on the same rounded numbers; gradients rounded once at the end."""
    hidden, weight, target, _ = case(40, 64, 300, dtype=dtype)
    wide_hidden, wide_weight = (value.detach().float().requires_grad_() for value in (hidden, weight))
    got, want = token_logps(hidden, weight, target, chunk=7), naive(wide_hidden, wide_weight, target)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-4)
    got.sum().backward()
    want.sum().backward()
    for ours, theirs in ((hidden, wide_hidden), (weight, wide_weight)):
        assert ours.grad is not None and theirs.grad is not None and ours.grad.dtype == dtype
        torch.testing.assert_close(ours.grad.float(), theirs.grad, rtol=tolerance, atol=1e-4)


def test_the_vocabulary_is_widened_in_blocks() -> None:
    """With 10 words of the weight at once, a half-precision head gives the same numbers, and no float32
    tensor of the weight's size is ever made.
    """
    hidden, weight, target, _ = case(9, 8, 33, dtype=torch.bfloat16)
    want = token_logps(hidden, weight, target)
    want_grads = torch.autograd.grad(want.sum(), (hidden, weight))
    with Widest() as widest:
        got = token_logps(hidden, weight, target, block=10)
        grads = torch.autograd.grad(got.sum(), (hidden, weight))
    assert 10 * 9 <= widest.numel < 33 * 8
    torch.testing.assert_close(got, want)
    for ours, theirs in zip(grads, want_grads, strict=True):
        torch.testing.assert_close(ours, theirs)


class Widest(TorchDispatchMode):
    """Remembers the largest float32 tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for item in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(item, Tensor) and item.dtype == torch.float32:
                self.numel = max(self.numel, item.numel())
        return out


def test_mixed_dtypes_compute_in_the_wider_one() -> None:
    hidden, weight, target, _ = case(9, 8, 33, dtype=torch.float32)
    low = hidden.detach().bfloat16().requires_grad_()
    got = token_logps(low, weight, target)
    torch.testing.assert_close(got, naive(low.float(), weight, target))
    got.sum().backward()
    assert low.grad is not None and low.grad.dtype == torch.bfloat16
    assert weight.grad is not None and weight.grad.dtype == torch.float32


def test_autocast_rounds_the_inputs_and_touches_nothing_else() -> None:
    hidden, weight, target, _ = case(9, 8, 33, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        got = token_logps(hidden, weight, target, chunk=4)
    want = naive(hidden.bfloat16().float(), weight.bfloat16().float(), target)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, want)
    grads = torch.autograd.grad(got.sum(), (hidden, weight), retain_graph=True)
    for ours, theirs in zip(grads, torch.autograd.grad(want.sum(), (hidden, weight)), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-2)
    with torch.autocast("cpu", torch.bfloat16):
        inside = torch.autograd.grad(got.sum(), (hidden, weight))
    for ours, theirs in zip(inside, grads, strict=True):
        assert torch.equal(ours, theirs), "a backward pass inside autocast gives the same bits"


def test_the_second_derivative_is_refused() -> None:
    hidden, weight, target, _ = case(4, 3, 5)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(token_logps(hidden, weight, target).sum(), hidden, create_graph=True)


def test_large_logits_do_not_overflow() -> None:
    hidden, weight, target, _ = case(5, 8, 33, dtype=torch.float32)
    got = token_logps(hidden * 1e4, weight, target)
    assert torch.isfinite(got).all()
    torch.testing.assert_close(got, naive(hidden * 1e4, weight, target))


def test_views_and_transposed_weights_are_taken_as_they_are() -> None:
    _, _, target, _ = case(6, 4, 9)
    draw = torch.Generator().manual_seed(3)
    hidden = torch.randn(4, 12, generator=draw, dtype=torch.float64)[:, ::2].t().requires_grad_()
    weight = torch.randn(4, 9, generator=draw, dtype=torch.float64).t().requires_grad_()
    got, want = token_logps(hidden, weight, target, chunk=4), naive(hidden, weight, target)
    grads = (torch.autograd.grad(value.sum(), (hidden, weight)) for value in (got, want))
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_the_same_call_gives_the_same_bits_twice() -> None:
    hidden, weight, target, _ = case(50, 32, 700, dtype=torch.float32)
    first, second = (token_logps(hidden, weight, target, chunk=16) for _ in range(2))
    assert torch.equal(first, second)
    grads = (torch.autograd.grad(value.sum(), (hidden, weight)) for value in (first, second))
    for one, two in zip(*grads, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": torch.zeros(2, 3, 4)}, "hidden must be"),
        ({"weight": torch.zeros(5, 7)}, "hidden must be"),
        ({"target": torch.zeros(3, dtype=torch.int64)}, "target must be"),
        ({"target": torch.zeros(2, dtype=torch.int32)}, "target must be"),
        ({"bias": torch.zeros(4)}, "bias must be"),
        ({"chunk": 0}, "chunk must be"),
        ({"block": 0}, "block must be"),
        ({"low_rank": (torch.zeros(2, 4), torch.zeros(5, 3), 1.0)}, "low_rank must be"),
        ({"low_rank": (torch.zeros(2, 5), torch.zeros(5, 2), 1.0)}, "low_rank must be"),
        ({"first": 3}, "needs a group"),
        ({"kernel": "fast"}, "must be one of tiles, triton"),
        ({"softcap": 0.0}, "softcap must be"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str) -> None:
    right: dict[str, Any] = {
        "hidden": torch.zeros(2, 4),
        "weight": torch.zeros(5, 4),
        "target": torch.zeros(2, dtype=torch.int64),
    }
    with pytest.raises(ValueError, match=message):
        token_logps(**(right | change))


@pytest.mark.parametrize("wrong", [-100, -1, 5])
def test_a_label_outside_the_vocabulary_is_an_error(wrong: int) -> None:
    with pytest.raises(RuntimeError, match="out of bounds"):
        token_logps(torch.zeros(1, 4), torch.zeros(5, 4), torch.tensor([wrong]))
