from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from llmfw.core.errors import UsageError
from llmfw.core.models import LocalPolicy, build_model, reference_of
from llmfw.core.models.parameters import trainable_parameters
from llmfw.core.records import Report, Surgery
from llmfw.core.schema import AdapterConfig

LORA = AdapterConfig(kind="lora", r=2)


def shake(built) -> None:
    with torch.no_grad():
        for parameter in trainable_parameters(built).values():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(9)) / 10)


def scaled(phase: str = "after_load", trainable: bool = True) -> Surgery:
    """A surgery that multiplies the last norm's output by a new parameter."""

    class Scaled(nn.Module):
        def __init__(self, norm: nn.Module) -> None:
            super().__init__()
            self.norm, self.by = norm, nn.Parameter(torch.tensor(1.5), requires_grad=trainable)

        def forward(self, x):
            return self.by * self.norm(x)

    def apply(model, generator):
        model.model.norm = Scaled(model.model.norm)
        return Report(changed=("model.norm",))

    return Surgery(name="scaled", phase=phase, apply=apply, trainable=("model.norm.by",) if trainable else ())


@pytest.mark.parametrize(
    ("adapter", "how"),
    [
        (LORA, "auto"),
        (LORA, "adapter_off"),
        (LORA, "copy"),
        (AdapterConfig(), "auto"),
        (AdapterConfig(), "copy"),
    ],
)
def test_the_reference_equals_the_base_bit_for_bit_before_and_after_training(
    tiny, batch, adapter, how
) -> None:
    base = LocalPolicy(build_model(tiny(), seed=5).module).logps(batch).detach()
    built = build_model(tiny(), adapter, seed=5)
    reference, policy = reference_of(built, how), LocalPolicy(built.module)
    assert torch.equal(policy.logps(batch), base)
    assert torch.equal(reference.logps(batch), base)
    shake(built)
    assert not torch.equal(policy.logps(batch), base)
    assert torch.equal(reference.logps(batch), base)
    assert not reference.logps(batch).requires_grad


@pytest.mark.parametrize("how", ["adapter_off", "copy"])
def test_a_reference_pass_disturbs_no_training_step(tiny, batch, how) -> None:
    """Modes, requires_grad and the gradients of a pass that is under way are as if nobody had asked the
    reference.
    """
    grads = []
    for asks in (False, True):
        built = build_model(tiny(attention_dropout=0.0), replace(LORA, dropout=0.0), seed=5)
        shake(built)
        reference = reference_of(built, how)
        built.module.train()
        before = [
            (part.training, [p.requires_grad for p in part.parameters(recurse=False)])
            for part in built.module.modules()
        ]
        out = LocalPolicy(built.module).logps(batch)
        if asks:
            reference.logps(batch)
        assert before == [
            (part.training, [p.requires_grad for p in part.parameters(recurse=False)])
            for part in built.module.modules()
        ]
        out.sum().backward()
        grads.append({name: parameter.grad for name, parameter in trainable_parameters(built).items()})
    assert all(torch.equal(grads[0][name], grads[1][name]) for name in grads[0])


def test_the_reference_has_no_dropout_while_the_policy_has(tiny, batch) -> None:
    built = build_model(tiny(attention_dropout=0.5), LORA, seed=5)
    reference = reference_of(built)
    built.module.train()
    assert torch.equal(reference.logps(batch), reference.logps(batch))
    assert built.module.training


def test_modes_come_back_after_an_error(tiny, batch) -> None:
    built = build_model(tiny(), LORA, seed=5)
    reference = reference_of(built)
    built.module.train()
    with pytest.raises(IndexError):
        reference.logps(replace(batch, input_ids=batch.input_ids + 1000))
    assert built.module.training
    shake(built)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(LocalPolicy(built.module.eval()).logps(batch), reference.logps(batch))


def test_with_a_trained_surgery_only_a_copy_is_the_reference(tiny, batch) -> None:
    built = build_model(tiny(), LORA, [("toy", scaled())], seed=5)
    with pytest.raises(
        UsageError, match=r"REFERENCE.*surgeries train model.norm.by; set trainer.reference=copy"
    ):
        reference_of(built, "adapter_off")
    reference = reference_of(built, "auto")
    before = LocalPolicy(built.module).logps(batch).detach()
    shake(built)
    assert reference.module is not built.module and torch.equal(reference.logps(batch), before)


def test_a_surgery_that_trains_nothing_is_part_of_the_reference(tiny, batch) -> None:
    built = build_model(tiny(), LORA, [("toy", scaled(trainable=False))], seed=5)
    reference = reference_of(built)
    assert reference.module is built.module
    assert torch.equal(reference.logps(batch), LocalPolicy(built.module).logps(batch))


def test_without_an_adapter_nothing_can_be_switched_off(tiny) -> None:
    with pytest.raises(UsageError, match=r"REFERENCE.*without an adapter"):
        reference_of(build_model(tiny()), "adapter_off")


def test_a_copy_shares_no_memory_and_no_gradient(tiny) -> None:
    built = build_model(tiny())
    copy = reference_of(built, "copy")
    ours = {parameter.data_ptr() for parameter in built.module.parameters()}
    assert not ours & {parameter.data_ptr() for parameter in copy.module.parameters()}
    assert not any(parameter.requires_grad for parameter in copy.module.parameters())
    assert all(parameter.requires_grad for parameter in built.module.parameters())
