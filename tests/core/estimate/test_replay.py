"""FLOPs and seconds of single operator calls."""

from __future__ import annotations

import torch

from llmfw.core.estimate.ghost import Call, Spec
from llmfw.core.estimate.machine import Machine
from llmfw.core.estimate.replay import flops_of, roofline, shortened, time_calls, total_flops

MACHINE = Machine(gemm=1e9, bandwidth=1e8, call=1e-6, threads=1)
aten = torch.ops.aten


def _spec(*shape: int) -> Spec:
    strides = torch.empty(shape, device="meta").stride()
    return Spec(tuple(shape), tuple(strides), torch.float32, "cpu")


def _mm(rows: int, inner: int, columns: int) -> Call:
    moved = 4 * (rows * inner + inner * columns + rows * columns)
    return Call(aten.mm.default, (_spec(rows, inner), _spec(inner, columns)), (), moved)


def test_a_product_counts_two_operations_for_each_pair_of_numbers() -> None:
    """[3, 5] x [5, 7]: 2 x 3 x 5 x 7 = 210."""
    assert flops_of(_mm(3, 5, 7)) == 210
    assert total_flops({_mm(3, 5, 7): 4}) == 840


def test_attention_counts_two_products_forward_and_five_backward() -> None:
    """B 2, H 3, T 5, D 7: 4 x 2 x 3 x 5 x 5 x 7 = 4,200; backward 2.5 times that, 10,500."""
    part = _spec(2, 3, 5, 7)
    ahead = aten._scaled_dot_product_flash_attention_for_cpu.default
    back = aten._scaled_dot_product_flash_attention_for_cpu_backward.default
    assert flops_of(Call(ahead, (part, part, part), (), 0)) == 4200
    assert flops_of(Call(back, (part, part, part, part, part), (), 0)) == 10500


def test_a_call_takes_the_longer_of_computing_and_moving() -> None:
    """At 1e9 FLOP/s and 1e8 bytes/s: a square product of 100 computes 2e6 (2 ms) and moves 1.2e5 bytes
    (1.2 ms); a sum of 1e6 numbers moves 1.2e7 bytes (120 ms) and computes no product."""
    assert roofline(_mm(100, 100, 100), MACHINE) == 2e-3
    part = _spec(1_000_000)
    assert roofline(Call(aten.add.Tensor, (part, part), (), 12_000_000), MACHINE) == 0.12


def test_calls_are_carried_out_and_large_ones_told_by_the_rates() -> None:
    """At these rates a product of 1,000 takes 2 s, above the limit: it isn't made, and its 2 s are told."""
    small, large = _mm(8, 8, 8), _mm(1000, 1000, 1000)
    found = time_calls([small, large], MACHINE, budget=0.5)
    assert found[small].measured and 0 < found[small].seconds < 0.1
    assert not found[large].measured and found[large].seconds == 2.0


def test_a_call_whose_values_decide_is_told_by_its_bytes() -> None:
    """A reshape of made-up sizes raises; its 1,000 bytes at 1e8 bytes/s are 10 us."""
    wrong = Call(aten.view.default, (_spec(4), (5,)), (), 1000)
    found = time_calls([wrong], MACHINE, budget=0.2)
    assert not found[wrong].measured and found[wrong].seconds == 1e-5


def test_long_lists_of_tensors_are_cut_and_their_share_is_known() -> None:
    """Forty lists' members of 4 MiB, 160 MiB in all: 16 of them are 64 MiB, 0.4 of the whole."""
    members = tuple(_spec(2**20) for _ in range(40))
    args, _, share = shortened(Call(aten._foreach_mul_.Scalar, (members, 0.5), (), 0))
    assert len(args[0]) == 16
    assert share == 0.4
