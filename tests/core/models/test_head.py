"""Which heads go straight to the primitive, and that an adapted head is the same head there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from llmfw.core.models import head as module_of_head
from llmfw.core.models.head import Head, gather_logps


class Body(nn.Module):
    """A head and nothing else, 6 wide, 11 words."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.lm_head = nn.Linear(6, 11, bias=bias)

    def forward(self, hidden: Tensor) -> Tensor:
        found: Tensor = self.lm_head(hidden)
        return found


def adapted(*, bias: bool = False, **settings: Any) -> Any:
    """PEFT's wrapper in float64, with a B that is not zero."""
    torch.manual_seed(2)
    config = LoraConfig(target_modules=["lm_head"], r=3, lora_alpha=5, init_lora_weights=False, **settings)
    return get_peft_model(Body(bias), config).double()


def layer(model: Any) -> Any:
    return model.base_model.model.lm_head


def states(tokens: int = 9) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, 6, generator=draw, dtype=torch.float64).requires_grad_()
    signal = torch.randn(tokens, generator=draw, dtype=torch.float64)
    return hidden, torch.randint(11, (tokens,), generator=draw), signal


def check(head: Head, model: nn.Module) -> None:
    """Log-probs and all gradients are those of the module's own logits."""
    hidden, target, signal = states()
    inputs = [hidden, *[parameter for parameter in model.parameters() if parameter.requires_grad]]
    torch.manual_seed(7)
    ours = head.logps(hidden, target)
    torch.manual_seed(7)
    theirs = gather_logps(head.logits(hidden), target)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    for mine, right in zip(
        torch.autograd.grad(ours, inputs, signal, allow_unused=True),
        torch.autograd.grad(theirs, inputs, signal, allow_unused=True),
        strict=True,
    ):
        assert (mine is None) == (right is None)
        if mine is not None:
            torch.testing.assert_close(mine, right, rtol=0, atol=1e-12)


@pytest.fixture
def chunks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each chunk of a head that is run as a module."""
    seen: list[int] = []
    run = module_of_head.checkpoint

    def watched(function: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Any:
        seen.append(1)
        return run(function, *args, **kwargs)

    monkeypatch.setattr(module_of_head, "checkpoint", watched)
    return seen


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("softcap", "scale"), [(None, 1.0), (2.0, 1.5)])
def test_a_lora_head_is_never_run_as_a_module(
    bias: bool, softcap: float | None, scale: float, chunks: list[int]
) -> None:
    model = adapted(bias=bias)
    head = Head(module=layer(model), softcap=softcap, scale=scale)
    assert head.low_rank is not None and head.low_rank[1] is not None
    assert head.low_rank[1][2] == 5 / 3, "alpha / r"
    check(head, model)
    assert chunks == []


def test_a_constant_bias_of_the_model_stands_beside_the_adapter(chunks: list[int]) -> None:
    model = adapted(bias=True)
    constant = torch.linspace(-1, 1, 11, dtype=torch.float64)
    check(Head(module=layer(model), bias=constant), model)
    assert chunks == []


def test_with_the_adapter_off_the_head_is_its_base_to_the_bit(chunks: list[int]) -> None:
    model = adapted(bias=True)
    base = layer(model).base_layer
    hidden, target, _ = states()
    with model.disable_adapter():
        head = Head(module=layer(model))
        assert head.low_rank == (base, None)
        off = head.logps(hidden, target)
    assert torch.equal(off, Head(module=base).logps(hidden, target))
    assert not torch.equal(off, Head(module=layer(model)).logps(hidden, target))
    assert chunks == []


def test_an_adapter_that_leaves_the_head_alone_is_none_for_it(chunks: list[int]) -> None:
    """A second adapter that only others have is on: PEFT then answers with the base layer."""
    model = adapted()
    layer(model).set_adapter(["default"])
    layer(model)._active_adapter = ["elsewhere"]
    check(Head(module=layer(model)), model)
    assert chunks == []


def dropping(model: Any) -> None:
    model.train()


def merged(model: Any) -> None:
    layer(model).merge()


def second(model: Any) -> None:
    config = LoraConfig(target_modules=["lm_head"], r=2, init_lora_weights=False)
    model.add_adapter("other", config)
    model.double()
    layer(model).set_adapter(["default", "other"])


def hooked(model: Any) -> None:
    layer(model).register_forward_hook(lambda _module, _args, output: output * 2)


def hooked_inside(model: Any) -> None:
    layer(model).lora_A["default"].register_forward_hook(lambda _module, _args, output: output * 2)


def hooked_base(model: Any) -> None:
    layer(model).base_layer.register_forward_hook(lambda _module, _args, output: output * 2)


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        ({"lora_dropout": 0.5}, dropping),
        ({"use_dora": True}, None),
        ({"lora_bias": True, "bias": True}, None),
        ({}, merged),
        ({}, second),
        ({}, hooked),
        ({}, hooked_inside),
        ({}, hooked_base),
    ],
    ids=["dropout", "dora", "bias of B", "merged", "two adapters", "hook", "hook on A", "hook on the base"],
)
def test_anything_else_is_run_as_it_is(
    settings: dict[str, Any], change: Callable[[Any], None] | None, chunks: list[int]
) -> None:
    model = adapted(**settings)
    if change is not None:
        change(model)
    head = Head(module=layer(model))
    assert head.low_rank is None
    check(head, model)
    assert chunks == [1]


def test_dropout_that_sleeps_is_no_dropout(chunks: list[int]) -> None:
    model = adapted(lora_dropout=0.5).eval()
    check(Head(module=layer(model)), model)
    assert chunks == []
