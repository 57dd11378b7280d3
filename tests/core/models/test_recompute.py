"""What is made again in the backward pass: the same numbers to the bit, and less kept meanwhile."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from llmfw.core.errors import UsageError
from llmfw.core.models.adapters import bare
from llmfw.core.models.build import BuiltModel, build_model
from llmfw.core.models.fused_build import ready_to_train
from llmfw.core.models.policy import LocalPolicy
from llmfw.core.schema import AdapterConfig, TrainerConfig

POLICIES = ("none", "elementwise", "layers")
LORA = AdapterConfig(kind="lora", r=2, dropout=0.4, target_modules=["all-linear"])


def ready(model: Any, policy: str, adapter: AdapterConfig | None = None) -> BuiltModel:
    built = build_model(model, adapter, seed=1)
    built.module.train()
    return ready_to_train(built, TrainerConfig(recompute=policy))


def trained(built: BuiltModel, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
    built.module.zero_grad()
    torch.manual_seed(5)
    loss = LocalPolicy(built.module).logps(batch).sum()
    loss.backward()
    parameters = built.module.named_parameters()
    return loss.detach(), {name: p.grad.clone() for name, p in parameters if p.grad is not None}


@pytest.mark.parametrize("adapter", [None, LORA])
def test_loss_and_gradients_are_the_same_to_the_bit_with_dropout_too(tiny, batch, adapter) -> None:
    (loss, grads), *others = [trained(ready(tiny(), policy, adapter), batch) for policy in POLICIES]
    assert len(grads) > 0
    for other, found in others:
        assert torch.equal(other, loss)
        assert found.keys() == grads.keys()
        assert all(torch.equal(found[name], grads[name]) for name in grads)


def kept(built: BuiltModel, batch: Any) -> dict[str, bool]:
    """What is still held after the forward pass, of what the first layer's products were given or made."""
    layer = bare(built.module).model.layers[0]
    seen: dict[str, StorageWeakRef] = {}
    for name in ("self_attn.q_proj", "mlp.gate_proj", "mlp.down_proj"):

        def note(_module: Any, given: Any, made: Tensor, name: str = name) -> None:
            seen.setdefault(f"into {name}", StorageWeakRef(given[0].untyped_storage()))
            seen.setdefault(f"out of {name}", StorageWeakRef(made.untyped_storage()))

        layer.get_submodule(name).register_forward_hook(note)
    policy = LocalPolicy(built.module)
    with torch.no_grad():
        policy.logps(batch)  # finds the head
    seen.clear()
    loss = policy.logps(batch).sum()
    found = {name: not storage.expired() for name, storage in seen.items()}
    loss.backward()
    return found


def test_each_policy_keeps_what_it_says(tiny, batch) -> None:
    """Queries before their rotation and the MLP's last product are kept by nobody; norms' outputs and the
    gated product only where nothing is made again; gate and up not where whole layers are.
    """
    cheap = {"into self_attn.q_proj", "into mlp.gate_proj", "into mlp.down_proj"}
    gate = "out of mlp.gate_proj"
    wanted = {"none": {*cheap, gate}, "elementwise": {gate}, "layers": set()}
    for policy in POLICIES:
        found = {name for name, held in kept(ready(tiny(), policy), batch).items() if held}
        assert found == wanted[policy], policy


def test_a_copy_of_the_model_and_calls_without_gradient_keep_nothing_and_answer_alike(tiny, batch) -> None:
    built = ready(tiny(), "elementwise")
    reference = LocalPolicy(deepcopy(built.module))
    with torch.no_grad():
        still = reference.logps(batch)
    assert torch.equal(still, LocalPolicy(built.module).logps(batch))


def test_an_error_inside_the_model_leaves_no_scope_open(tiny, batch) -> None:
    built = ready(tiny(), "elementwise")
    broken = built.module.model.layers[1].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        LocalPolicy(built.module).logps(batch)
    broken.remove()
    seen = []
    x = torch.ones(3, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: seen.append(t) or t, lambda t: t):
        (x * x).sum().backward()
    assert len(seen) == 2  # the outer hooks are the ones that count again
    trained(built, batch)


def test_whole_layers_are_transformers_own_checkpointing(tiny) -> None:
    assert ready(tiny(), "layers").module.is_gradient_checkpointing
    assert not ready(tiny(), "elementwise").module.is_gradient_checkpointing


def test_a_model_with_nothing_known_to_make_again_is_refused(tiny) -> None:
    config = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 40}
    with pytest.raises(UsageError, match="RECOMPUTE"):
        ready(replace(tiny(), config=config), "elementwise")
