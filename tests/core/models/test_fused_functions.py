"""The fused functions against transformers' own modules, against finite differences, and what they keep."""

from itertools import product

import pytest
import torch
from torch import Tensor, nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from llmfw.core.models.fused_functions import gated_product, remembering, rms_norm, rotary
from llmfw.core.models.fused_kernels import ACTIVATIONS, NormKind, activate

LLAMA = NormKind(eps=1e-5)
GEMMA = NormKind(eps=1e-5, offset=1.0, cast_first=False)
OWN = {
    "silu": nn.SiLU(),
    "gelu": nn.GELU(),
    "gelu_tanh": nn.GELU(approximate="tanh"),
    "relu": nn.ReLU(),
}


def drawn(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return made.to(dtype).requires_grad_()


def gradients(made: Tensor, *of: Tensor) -> tuple[Tensor, ...]:
    weights = torch.linspace(-1, 2, made.numel(), dtype=torch.float64).to(made.dtype).view(made.shape)
    return torch.autograd.grad((made * weights).sum(), of)


@pytest.mark.parametrize(
    ("offset", "wide", "first"), list(product((0.0, 1.0), (None, torch.float64), (True, False)))
)
def test_the_norms_gradients_are_those_of_finite_differences(offset, wide, first) -> None:
    kind = NormKind(eps=1e-3, offset=offset, wide=wide, cast_first=first)
    x, weight = drawn(2, 3, 5), drawn(5, seed=1)
    assert torch.autograd.gradcheck(lambda x, w: rms_norm(x, w, kind), (x, weight))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_gated_products_gradients_are_those_of_finite_differences(activation) -> None:
    gate, up = drawn(2, 3, 5), drawn(2, 3, 5, seed=1)
    assert torch.autograd.gradcheck(lambda g, u: gated_product(g, u, activation), (gate, up))


@pytest.mark.parametrize("rows", [1, 2])
def test_the_rotations_gradient_is_that_of_finite_differences(rows) -> None:
    """Also where cosines and sines are any numbers, and one row of them serves both rows of the batch."""
    cos, sin = drawn(rows, 3, 4, seed=1).detach(), drawn(rows, 3, 4, seed=2).detach()
    assert torch.autograd.gradcheck(lambda x: rotary(x, cos, sin), (drawn(2, 5, 3, 4),))


def test_a_norm_worked_out_by_hand() -> None:
    """x = (3, 4), eps 0: mean of squares 12.5, so y = w * x / 3.5355339 = (1 * 0.8485281, 2 * 1.1313708)."""
    y = rms_norm(torch.tensor([[3.0, 4.0]]), torch.tensor([1.0, 2.0]), NormKind(eps=0.0))
    torch.testing.assert_close(y, torch.tensor([[0.84852814, 2.26274170]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("own", "kind"), [(LlamaRMSNorm, LLAMA), (GemmaRMSNorm, GEMMA)])
def test_norms_answer_as_transformers_own_to_the_bit_in_every_dtype(own, kind, dtype) -> None:
    theirs = own(24, eps=1e-5).to(dtype)
    theirs.weight.data = drawn(24, dtype=dtype, seed=1).detach()
    x = drawn(2, 40, 24, dtype=dtype)
    ours = rms_norm(x, theirs.weight, kind)
    expected = theirs(x)
    assert ours.dtype == expected.dtype and torch.equal(ours, expected)
    close = {torch.float32: 2e-6, torch.float64: 2e-6, torch.bfloat16: 2e-2}[dtype]  # both work in float32
    found, wanted = gradients(ours, x, theirs.weight), gradients(expected, x, theirs.weight)
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype
        assert (one - other).norm() <= close * other.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gated_products_answer_as_the_two_operations_to_the_bit(activation, dtype) -> None:
    gate, up = drawn(2, 40, 24, dtype=dtype), drawn(2, 40, 24, dtype=dtype, seed=1)
    ours, expected = gated_product(gate, up, activation), OWN[activation](gate) * up
    assert torch.equal(ours, expected)
    close = {torch.float32: 1e-6, torch.float64: 1e-12, torch.bfloat16: 1e-2}[dtype]
    for one, other in zip(gradients(ours, gate, up), gradients(expected, gate, up), strict=True):
        assert (one - other).norm() <= close * other.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_rotations_answer_as_transformers_own_to_the_bit(dtype) -> None:
    q, k = drawn(2, 4, 20, 8, dtype=dtype), drawn(2, 2, 20, 8, dtype=dtype, seed=1)
    cos, sin = (drawn(2, 20, 8, dtype=dtype, seed=seed).detach() for seed in (2, 3))
    close = {torch.float32: 1e-6, torch.float64: 1e-12, torch.bfloat16: 1e-2}[dtype]
    for x, expected in zip((q, k), apply_rotary_pos_emb(q, k, cos, sin), strict=True):
        ours = rotary(x, cos, sin)
        assert torch.equal(ours, expected)
        (one,), (other,) = gradients(ours, x), gradients(expected, x)
        assert (one - other).norm() <= close * other.norm()


def kept(run) -> int:
    """Elements that a function keeps for its backward pass, each storage once."""
    storages: dict[int, int] = {}
    alive = []

    def note(tensor: Tensor) -> Tensor:
        alive.append(tensor)
        storages[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes() // tensor.itemsize
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        made = run()
    assert made.requires_grad
    return sum(storages.values())


def test_each_function_keeps_its_input_and_nothing_that_it_can_make_again() -> None:
    """40 tokens of width 24: a norm keeps x (960), the weight (24) and one number a token (40), transformers'
    own the normalised x (960) too; a gated product gate and up (1920), the two operations also the
    activation (960); a rotation cosines and sines (2 * 40 * 24).
    """
    x, gate, up = drawn(40, 24), drawn(40, 24), drawn(40, 24, seed=1)
    weight, angles = drawn(24, seed=1), [drawn(1, 40, 24, seed=seed).detach() for seed in (2, 3)]
    assert kept(lambda: rms_norm(x, weight, LLAMA)) == 960 + 24 + 40
    assert kept(lambda: gated_product(gate, up, "silu")) == 1920
    assert kept(lambda: OWN["silu"](gate) * up) == 2880
    assert kept(lambda: rotary(drawn(1, 1, 40, 24), *angles)) == 1920


def chain(x: Tensor, weight: Tensor, matrix: Tensor) -> Tensor:
    y = rms_norm(x, weight, LLAMA)
    gate, up = y @ matrix, y @ matrix.T
    return gated_product(gate, up, "silu") @ matrix


def test_what_was_remembered_is_made_again_to_the_bit() -> None:
    x, weight, matrix = (drawn(*shape, dtype=torch.float32) for shape in ((40, 24), (24,), (24, 24)))
    plain = gradients(chain(x, weight, matrix), x, weight, matrix)
    with remembering():
        made = chain(x, weight, matrix)
    for again in range(2):  # a graph that is kept gives the same a second time
        weights = torch.linspace(-1, 2, made.numel(), dtype=torch.float64).float().view(made.shape)
        found = torch.autograd.grad((made * weights).sum(), (x, weight, matrix), retain_graph=not again)
        assert all(torch.equal(one, other) for one, other in zip(found, plain, strict=True))


def test_remembered_tensors_are_not_kept() -> None:
    """Of ``chain``, 40 tokens of width 24: y and the product (960 elements each) are let go of, so that the
    memory they stood in is free once the forward pass is over.
    """
    x, weight, matrix = drawn(40, 24), drawn(24), drawn(24, 24)
    gone = []

    def run(inside) -> None:
        with inside:
            y = rms_norm(x, weight, LLAMA)
            storage = torch.multiprocessing.reductions.StorageWeakRef(y.untyped_storage())
            z = y @ matrix
            del y
        gone.append(storage.expired())
        assert z.requires_grad

    run(remembering())
    run(torch.enable_grad())
    assert gone == [True, False]


def test_an_input_that_is_written_over_is_refused() -> None:
    x, weight, matrix = drawn(40, 24), drawn(24), drawn(24, 24)
    shifted = x + 1
    with remembering():
        made = (rms_norm(shifted, weight, LLAMA) @ matrix).sum()
    with torch.no_grad():
        shifted.add_(1)
    with pytest.raises(RuntimeError, match="modified"):
        made.backward()


def test_activations_have_memory_of_their_own() -> None:
    """``gated`` writes over what ``activate`` gives: relu of positive numbers mustn't be the input itself."""
    gate = torch.ones(3)
    for name in ACTIVATIONS:
        activate(gate, name).zero_()
    assert gate.tolist() == [1, 1, 1]
