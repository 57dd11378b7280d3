"""A sharded model in a world of one process: its pieces are the whole, and every path runs.

Two processes run in tests/tested/test_strategies.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from llmfw.core.models.build import build_model
from llmfw.core.models.policy import LocalPolicy
from llmfw.core.models.reference import reference_of
from llmfw.core.models.shards import (
    fill,
    gathered,
    inside,
    is_sharded,
    like,
    piece,
    shard,
    whole,
    whole_state,
)
from llmfw.core.models.store import load_weights, save_weights, whole_weights
from llmfw.core.schema import AdapterConfig
from llmfw.core.training.ranks import average_replicas, clip_gradients, gradient_norm

LORA = AdapterConfig(kind="lora", r=2)
ROUTED = {
    "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2, "output_router_logits": True,
    "router_aux_loss_coef": 0.1,
}  # fmt: skip


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One process that is a group of its own."""
    store = tmp_path_factory.mktemp("group") / "store"
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


def pair(model: Any, mesh: Any, adapter: AdapterConfig | None = None) -> tuple[Any, Any]:
    """A built model, and the same with its module sharded."""
    built = build_model(model, adapter, seed=3)
    with torch.no_grad():
        for name, parameter in built.module.named_parameters():
            if "lora_B" in name:  # zero at first, so that nothing would be seen of A
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    other = replace(built, module=deepcopy(built.module))
    shard(other.module, mesh)
    return built, other


@pytest.mark.parametrize("adapter", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize(
    "changes", [{}, {"tie_word_embeddings": True}, ROUTED], ids=["untied", "tied", "routed"]
)
def test_log_probs_and_gradients_are_those_of_the_whole_model(tiny, batch, mesh, adapter, changes) -> None:
    grads: list[dict[str, torch.Tensor]] = []
    for built in pair(tiny(**changes), mesh, adapter):
        assert is_sharded(built.module) == bool(grads)
        policy = LocalPolicy(built.module)
        with torch.no_grad():
            still = policy.logps(batch)
        logps = policy.logps(batch)
        torch.testing.assert_close(still, logps.detach())
        loss = -logps.sum() + (policy.auxiliary if policy.auxiliary is not None else 0.0)
        loss.backward()
        found = {n: p.grad for n, p in built.module.named_parameters() if p.grad is not None}
        assert all(isinstance(grad, DTensor) for grad in found.values()) == bool(grads)
        norm = gradient_norm(found, ())
        clip_gradients(built.module.parameters(), 0.5, norm)
        grads.append(
            {name: whole(grad) for name, grad in found.items()} | {"norm": norm, "logps": logps.detach()}
        )
    assert grads[0].keys() == grads[1].keys() and float(grads[0]["norm"]) > 0.5
    for name, value in grads[0].items():
        torch.testing.assert_close(grads[1][name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_hidden_states_and_the_reference_run_on_pieces(tiny, batch, mesh) -> None:
    built, other = pair(tiny(), mesh, LORA)
    for layer in (0, 1, -1):
        states = [LocalPolicy(one.module).hidden_states(batch, layer).detach() for one in (built, other)]
        torch.testing.assert_close(states[0], states[1])
    off = [reference_of(one, "adapter_off").logps(batch) for one in (built, other)]
    torch.testing.assert_close(off[0], off[1])
    assert not torch.allclose(off[0], LocalPolicy(built.module).logps(batch))


def test_gathered_parameters_are_whole_until_the_block_ends(tiny, batch, mesh) -> None:
    built, other = pair(tiny(), mesh)
    before = [name for name, p in other.module.named_parameters() if isinstance(p, DTensor)]
    assert len(before) == len(list(built.module.parameters()))
    LocalPolicy(other.module).logps(batch).sum().backward()
    order = other.module._get_fsdp_state()._comm_ctx.post_forward_order
    assert order == []
    with gathered(other.module, built.module, nn.Linear(1, 1)):
        for own, theirs in zip(other.module.parameters(), built.module.parameters(), strict=True):
            assert not isinstance(own, DTensor) and torch.equal(own, theirs)
        with torch.inference_mode():
            logits = other.module(input_ids=batch.input_ids[:1]).logits
        torch.testing.assert_close(logits, built.module(input_ids=batch.input_ids[:1]).logits)
        assert not isinstance(next(other.module.parameters()), DTensor), "a call doesn't cut it up again"
        with torch.no_grad():
            LocalPolicy(other.module).logps(batch)
        assert len(order) > 1
    assert len(order) == 1, "what ran inside leaves no trace; the one is the call that gathered's start makes"
    assert before == [name for name, p in other.module.named_parameters() if isinstance(p, DTensor)]
    torch.testing.assert_close(LocalPolicy(other.module).logps(batch), LocalPolicy(built.module).logps(batch))


@pytest.mark.parametrize("adapter", [None, LORA], ids=["full", "lora"])
def test_weights_are_saved_and_loaded_as_one_process_does(tiny, mesh, adapter, tmp_path: Path) -> None:
    built, other = pair(tiny(tie_word_embeddings=True), mesh, adapter)
    save_weights(built, tmp_path / "one")
    save_weights(other, tmp_path / "two", whole_weights(other, keep=True))
    for file in (tmp_path / "one").glob("*.safetensors"):
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()
    if adapter is None:
        told = json.loads((tmp_path / "two" / "config.json").read_text())
        assert told["architectures"] == ["LlamaForCausalLM"]
    with torch.no_grad():
        for parameter in other.module.parameters():
            if parameter.requires_grad:
                piece(parameter).zero_()
    load_weights(other, tmp_path / "one")
    for (name, value), own in zip(built.module.named_parameters(), other.module.parameters(), strict=True):
        assert torch.equal(whole(own), value), name


def test_a_state_is_whole_where_it_is_wanted_and_kept(tiny, mesh) -> None:
    _, other = pair(tiny(tie_word_embeddings=True), mesh)
    state = whole_state(other.module, lambda name, _: "layers" not in name, keep=True)
    assert state["lm_head.weight"] is state["model.embed_tokens.weight"]
    assert not isinstance(state["model.norm.weight"], DTensor)
    assert isinstance(state["model.layers.0.mlp.up_proj.weight"], DTensor)
    others = whole_state(other.module, lambda name, _: True, keep=False)
    assert isinstance(others["model.norm.weight"], DTensor), "a process that doesn't keep it gets nothing"


def test_a_tensor_is_cut_up_as_another_is_and_plain_ones_pass(tiny, mesh) -> None:
    _, other = pair(tiny(), mesh)
    weight = other.module.lm_head.weight
    value = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    cut = like(value, weight)
    assert isinstance(cut, DTensor) and cut.placements == weight.placements
    fill(weight, value)
    assert torch.equal(whole(weight), value)
    plain = torch.zeros(2)
    fill(plain, torch.ones(2))
    assert piece(plain) is plain and plain.tolist() == [1, 1] and like(value, plain) is value
    assert inside(nn.Linear(1, 1), lambda: 7) == 7


def test_gradients_of_replicas_are_left_alone_in_a_world_of_one(mesh) -> None:
    linear = nn.Linear(2, 2)
    linear.weight.grad = torch.ones(2, 2)
    average_replicas(linear.parameters())
    assert linear.weight.grad.tolist() == [[1, 1], [1, 1]] and linear.bias.grad is None
