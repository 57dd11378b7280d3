"""What a step multiplies and where it reads: counted by hand first."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from llmfw.core.profiling.counting import Counting
from llmfw.core.profiling.rate import gemm_rate, product_dtype

HERE: tuple[str, str] = ("here", "")


def _reads(counting: Counting) -> dict[str, int]:
    return {what: times for (what, _, _), times in counting.reads.items()}


def test_products_are_counted_by_phase_forward_and_backward() -> None:
    """[3, 4] x [4, 5]: 2 x 3 x 4 x 5 = 120, and as much for each of the two gradients."""
    phase = [("one", "")]
    counting = Counting(lambda: phase[0])
    left, right = torch.ones(3, 4, requires_grad=True), torch.ones(4, 5, requires_grad=True)
    with counting.over():
        total = (left @ right).sum()
        phase[0] = ("two", "")
        total.backward()
    assert dict(counting.flops) == {("one", ""): 120, ("two", ""): 240}


@pytest.mark.parametrize("causal", [True, False])
def test_attention_on_a_cpu_counts_its_two_products_and_five_backward(causal: bool) -> None:
    """B = 2, H = 3, T = 16, d = 8: 2 products of 2 B H T T d = 24,576, then 5 more with the scores again."""
    counting = Counting(lambda: HERE)
    q, k, v = (torch.randn(2, 3, 16, 8, requires_grad=True) for _ in range(3))
    with counting.over():
        out = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        assert counting.flops[HERE] == 2 * 24_576
        out.sum().backward()
    assert counting.flops[HERE] == 7 * 24_576


def test_every_way_of_reading_a_number_is_counted_once() -> None:
    values = torch.arange(4.0)
    ways = {
        "item": lambda: values[0].item(),
        "tolist": values.tolist,
        "bool": lambda: bool(values[0] > 0),
        "float": lambda: float(values[1]),
        "int": lambda: int(values[1]),
        "nonzero": values.nonzero,
        "index by truth values": lambda: values[values > 1],
        "cpu": values.cpu,
        "tensor: host to device": lambda: torch.tensor(1.0, device="cpu"),
        "new_tensor: host to device": lambda: values.new_tensor([1.0, 2.0]),
        "repeat_interleave": lambda: torch.repeat_interleave(torch.tensor([1, 2])),
    }
    for what, way in ways.items():
        counting = Counting(lambda: HERE)
        with counting.over():
            way()
        assert _reads(counting) == {what: 1}, what
        ((_, at, phase),) = counting.reads
        assert at.startswith("test_counting.py:") and phase == HERE


def test_work_on_the_device_is_no_read_and_a_silent_phase_is_not_looked_at() -> None:
    values, index = torch.arange(4.0), torch.tensor([1, 2])
    counting = Counting(lambda: HERE)
    with counting.over():
        values[index].sum().double() + torch.full((), 2.0)
        values.masked_fill(values > 1, 0.0).clamp(min=1).to("cpu")
        torch.repeat_interleave(index, 2)
    assert counting.waits == 0
    quiet = Counting(lambda: HERE, silent=[HERE])
    with quiet.over():
        values.tolist()
    assert quiet.waits == 0


def test_a_read_inside_a_backward_pass_is_seen() -> None:
    class Reads(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value):  # type: ignore[no-untyped-def]
            return value * 1

        @staticmethod
        def backward(ctx, gradient):  # type: ignore[no-untyped-def]
            return gradient * gradient.item()

    value = torch.tensor(2.0, requires_grad=True)
    counting = Counting(lambda: HERE)
    with counting.over():
        Reads.apply(value).backward()
    assert counting.waits == 1


def test_the_machines_rate_is_measured_in_the_runs_numbers() -> None:
    assert gemm_rate(torch.device("cpu"), torch.float32) > 1e8
    assert product_dtype("32-true", torch.bfloat16) is torch.bfloat16
    assert product_dtype("bf16-mixed", torch.float32) is torch.bfloat16
    assert product_dtype("16-mixed", torch.float32) is torch.float16
