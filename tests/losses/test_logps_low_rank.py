"""The low-rank term of the head: exact values and gradients without a matrix of the weight's size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from llmfw.losses.logps import token_logps
from tests.losses.test_logps import Largest, naive


def case(
    tokens: int = 7, width: int = 5, vocabulary: int = 11, rank: int = 3, dtype: torch.dtype = torch.float64
) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(1)

    def make(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype).requires_grad_()

    return {
        "hidden": make(tokens, width),
        "weight": make(vocabulary, width),
        "bias": make(vocabulary),
        "A": make(rank, width),
        "B": make(vocabulary, rank),
        "target": torch.randint(vocabulary, (tokens,), generator=draw),
    }


def ours(found: dict[str, Tensor], **settings: object) -> Tensor:
    low = (found["A"], found["B"], 0.7)
    return token_logps(
        found["hidden"], found["weight"], found["target"], bias=found["bias"], low_rank=low, **settings
    )


def theirs(found: dict[str, Tensor], softcap: float | None = None, scale: float = 1.0) -> Tensor:
    merged = found["weight"] + 0.7 * found["B"] @ found["A"]
    return naive(found["hidden"], merged, found["target"], found["bias"], softcap, scale)


def test_a_value_worked_out_by_hand() -> None:
    """Width 1, weights 0; A = 2, B = (0, ln 3), factor 1/2, state 1: the probabilities are 1/4 and 3/4."""
    three = torch.tensor(3.0).log().item()
    got = token_logps(
        torch.ones(2, 1),
        torch.zeros(2, 1),
        torch.tensor([0, 1]),
        low_rank=(torch.tensor([[2.0]]), torch.tensor([[0.0], [three]]), 0.5),
    )
    torch.testing.assert_close(got.exp(), torch.tensor([0.25, 0.75]))


@pytest.mark.parametrize(("chunk", "block"), [(None, None), (1, 1), (2, 4), (3, 11), (7, 5)])
@pytest.mark.parametrize(("softcap", "scale"), [(None, 1.0), (2.5, 1.0), (3.0, 1.7)])
@pytest.mark.parametrize(
    "wanted", [("hidden", "A", "B"), ("hidden", "weight", "bias", "A", "B"), ("A",), ("B",)]
)
def test_values_and_gradients_equal_those_of_the_merged_weight(
    chunk: int | None, block: int | None, softcap: float | None, scale: float, wanted: tuple[str, ...]
) -> None:
    found = {name: value.detach() for name, value in case().items()}
    for name in wanted:
        found[name].requires_grad_()
    got = ours(found, chunk=chunk, block=block, softcap=softcap, scale=scale)
    want = theirs(found, softcap, scale)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    inputs = [found[name] for name in wanted]
    signal = torch.linspace(-1.0, 2.0, 7, dtype=torch.float64)
    pairs = zip(
        torch.autograd.grad(got, inputs, signal), torch.autograd.grad(want, inputs, signal), strict=True
    )
    for mine, right in pairs:
        torch.testing.assert_close(mine, right, rtol=0, atol=1e-12)


def test_float64_gradcheck() -> None:
    found = case(4, 3, 5, 2)
    names = ["hidden", "weight", "bias", "A", "B"]

    def call(*values: Tensor) -> Tensor:
        made = {**found, **dict(zip(names, values, strict=True))}
        return ours(made, chunk=3, block=2, softcap=2.0, scale=1.3)

    assert torch.autograd.gradcheck(call, tuple(found[name] for name in names))


def test_no_tensor_of_the_weights_size_is_made() -> None:
    """40 words by 30 wide, tiles of 4 by 8: the largest tensor is B's gradient or the states', 40 x 3 or 9 x
    30.
    """
    found = {name: value.detach() for name, value in case(9, 30, 40).items()}
    for name in ("hidden", "A", "B"):
        found[name].requires_grad_()
    with Largest() as largest:
        ours(found, chunk=4, block=8).sum().backward()
    assert largest.numel == 9 * 30
    assert found["weight"].grad is None


def test_no_token_at_all_gives_zero_gradients() -> None:
    found = case(0)
    ours(found).sum().backward()
    for name in ("weight", "bias", "A", "B"):
        assert found[name].grad is not None and not found[name].grad.any(), name


def test_a_half_precision_weight_with_a_float32_adapter() -> None:
    """As PEFT keeps them: the adapter is not rounded to the weight's dtype, and its gradients come in its
    own.
    """
    found = {name: value.detach() for name, value in case(40, 64, 300, 4).items()}
    low = {
        name: value.to(torch.bfloat16) if name in ("hidden", "weight", "bias") else value
        for name, value in found.items()
    }
    low["A"], low["B"] = low["A"].float().requires_grad_(), low["B"].float().requires_grad_()
    wide = {
        name: value.detach() if name == "target" else value.detach().double() for name, value in low.items()
    }
    wide["A"].requires_grad_(), wide["B"].requires_grad_()
    got, want = ours(low), theirs(wide)
    torch.testing.assert_close(got.double(), want, rtol=0, atol=1e-4)
    got.sum().backward()
    want.sum().backward()
    for name in ("A", "B"):
        assert low[name].grad.dtype == torch.float32
        torch.testing.assert_close(low[name].grad.double(), wide[name].grad, rtol=1e-4, atol=1e-3)


def test_autocast_rounds_the_adapter_as_it_rounds_the_weight() -> None:
    found = case(9, 8, 33, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        got = ours(found)
    rounded = {
        name: value if name in ("target", "bias") else value.detach().bfloat16().float()
        for name, value in found.items()
    }
    torch.testing.assert_close(got, ours(rounded), rtol=1e-5, atol=1e-5)
