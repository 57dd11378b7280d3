"""Lifetimes and kinds of memory in code that runs without values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from llmfw.core.estimate.ghost import Ghost


def test_the_peak_is_where_most_tensors_are_alive() -> None:
    """1,000 floats are 4,000 bytes. a (4,000), b = a x 2 (8,000), a goes, c = b + 1: 8,000 at the most, while
    keeping a too would make it 12,000."""
    ghost = Ghost()
    with ghost:
        a = torch.zeros(1000)
        b = a * 2
        del a
        c = b + 1
    assert ghost.ledger.peak() == (8000, {"activations": 8000})
    assert ghost.ledger.live == 8000
    del b, c
    assert ghost.ledger.live == 0


def test_views_take_no_memory_of_their_own() -> None:
    ghost = Ghost()
    with ghost:
        a = torch.zeros(1000)
        views = [a.view(10, 100), a[5:], a.detach(), a.t()]
    assert ghost.ledger.peak()[0] == 4000
    assert len(views) == 4


def test_whole_numbers_keep_their_values() -> None:
    """Code may look at ids, masks and lengths; a floating-point tensor among them becomes a ghost."""
    ghost = Ghost()
    with ghost:
        lengths = torch.tensor([3, 1, 2])
        assert int(lengths.sum()) == 6
        assert (torch.arange(4) > 1).tolist() == [False, False, True, True]
        rows = torch.randn(6, 2).split(lengths.tolist())
    assert [tuple(row.shape) for row in rows] == [(3, 2), (1, 2), (2, 2)]


def test_memory_is_for_what_it_was_made_for_or_marked_as() -> None:
    """Weights 400 bytes, their gradient 400 (told afterwards), the product 40 activations."""
    ghost = Ghost()
    with ghost, ghost.kind("weights"):
        weight = nn.Parameter(torch.zeros(10, 10))
    with ghost:
        given = torch.zeros(1, 10)
        out = given @ weight
        out.sum().backward()
    assert weight.grad is not None
    ghost.mark(weight.grad, "gradients")
    _, parts = ghost.ledger.peak()
    assert parts["weights"] == 400
    assert parts["gradients"] == 400


def test_operator_calls_are_counted_by_their_forms() -> None:
    """Two products of one form and one of another; views aren't counted."""
    ghost = Ghost()
    with ghost:
        a, b = torch.zeros(2, 3), torch.zeros(3, 4)
        with ghost.counting() as calls:
            for _ in range(2):
                a @ b
            a.t().contiguous().t() @ b
    products = {call.args[0].stride: count for call, count in calls.items() if "mm" in call.operator.name()}
    assert products == {(3, 1): 2, (1, 2): 1}


def test_a_forward_pass_without_values_saves_the_bytes_that_a_real_one_saves(tiny_llama: Any) -> None:
    """Distinct stretches of memory that autograd keeps, parameters aside, of the same model and rows."""
    from llmfw.core.models.encoder_decoder import auto_class

    ghost = Ghost()
    with ghost:
        blank = auto_class(tiny_llama.config).from_config(tiny_llama.config, attn_implementation="sdpa")
    ids = torch.randint(0, 250, (3, 40))
    mask = torch.ones_like(ids)
    mask[1, 30:] = 0
    with ghost:
        predicted = _saved(blank, ids, mask)
    assert predicted == _saved(tiny_llama, ids, mask)
    assert predicted > 100_000


def _saved(model: Any, ids: Tensor, mask: Tensor) -> int:
    """Bytes of distinct storages behind the tensors that autograd saves."""
    model.train()
    own = {value.untyped_storage()._cdata for value in (*model.parameters(), *model.buffers())}
    kept: dict[int, tuple[int, Tensor]] = {}

    def pack(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage._cdata not in own and value.is_floating_point():
            kept[storage._cdata] = (storage.nbytes(), value.detach())
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        out = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)[0]
    assert out.requires_grad
    return sum(size for size, _ in kept.values())
