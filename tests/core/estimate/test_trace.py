"""What a run's step holds, against sums by hand and against the step itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llmfw.core.assemble import Assembled, assemble, settle
from llmfw.core.errors import UsageError
from llmfw.core.estimate.batches import source_of, work_of
from llmfw.core.estimate.blank import eight_bits
from llmfw.core.estimate.trace import Tracer
from llmfw.core.models import build_model


@pytest.fixture
def assembled(rows_file: Callable[..., Path]) -> Callable[..., Assembled]:
    file = rows_file(count=12)

    def make(*words: str) -> Assembled:
        given = ("model=tiny-llama", f"data={file}", "data.validation=0", "trainer.accelerator=cpu", *words)
        return assemble(settle(overrides=given), "plan")

    return make


def _memory(assembled: Assembled, *, accumulate: int = 1) -> Any:
    trainer = assembled.run.config.trainer
    work = work_of(source_of(assembled), trainer.micro_batch, accumulate)
    return Tracer(assembled).trace(work.largest, accumulate=accumulate)[0]


def test_weights_gradients_and_moments_are_exact(assembled: Callable[..., Assembled]) -> None:
    """In full training there are as many gradients as parameters, and AdamW keeps two numbers and a step
    count (4 bytes a tensor) of each."""
    made = assembled()
    module = build_model(made.settled.source).module
    parameters = list(module.parameters())
    size = sum(value.nbytes for value in parameters)
    memory = _memory(made)
    assert memory.standing["weights"] == size + sum(value.nbytes for value in module.buffers())
    assert memory.standing["optimizer"] == 2 * size + 4 * len(parameters)
    assert memory.gradients == size


def test_an_adapter_trains_its_own_parameters_alone(assembled: Callable[..., Assembled]) -> None:
    """LoRA of rank 4 on every linear layer of two blocks: r x (in + out) numbers a layer. q 64+64, k and v
    64+32 each, o 64+64, gate and up 64+128 each, down 128+64: 4 x 1,024 = 4,096 a block, 8,192 in all."""
    memory = _memory(assembled("adapter.kind=lora", "adapter.r=4"))
    assert memory.gradients == 32_768


def test_later_micro_batches_find_gradients_in_memory(assembled: Callable[..., Assembled]) -> None:
    """With accumulation the gradients are there all the time: the peak is higher by some of them at least."""
    once, twice = _memory(assembled()), _memory(assembled(), accumulate=2)
    assert once.peak < twice.peak <= once.peak + once.gradients
    assert twice.parts["gradients"] >= once.gradients


def test_checkpointed_activations_need_less(assembled: Callable[..., Assembled]) -> None:
    plain = _memory(assembled("trainer.micro_batch=12"))
    again = _memory(assembled("trainer.micro_batch=12", "trainer.recompute=layers"))
    assert again.parts["activations"] < 0.8 * plain.parts["activations"]


def test_half_precision_weights_take_half(assembled: Callable[..., Assembled]) -> None:
    wide, narrow = _memory(assembled()), _memory(assembled("trainer.precision=bf16-true"))
    assert narrow.gradients * 2 == wide.gradients


def test_eight_bit_moments_take_a_byte_each_and_a_scale_a_block() -> None:
    """4,096 numbers: 2 x (4,096 + 16 blocks x 4) = 8,320; 100 numbers keep 32 bits: 800."""
    assert eight_bits(torch.nn.Parameter(torch.zeros(64, 64))) == 8320
    assert eight_bits(torch.nn.Parameter(torch.zeros(100))) == 800


def test_tracing_changes_no_random_numbers_and_leaves_nothing_behind(
    assembled: Callable[..., Assembled],
) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    made = assembled()
    tracer = Tracer(made)
    work = work_of(source_of(made), 2, 1)
    first = tracer.trace(work.largest)[0]
    assert tracer.trace(work.largest)[0].peak == first.peak
    assert torch.equal(torch.rand(4), expected)


def test_a_quantised_base_cant_be_estimated(assembled: Callable[..., Assembled]) -> None:
    from llmfw.core.estimate.estimate import Estimator

    with pytest.raises(
        UsageError, match=r"error\[ESTIMATE\] model.quantization: can't estimate a base in nf4"
    ):
        Estimator(assembled("model.quantization=nf4", "adapter.kind=lora"))
