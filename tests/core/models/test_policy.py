from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from llmfw.core.errors import PluginError, UsageError
from llmfw.core.models import LocalPolicy, build_model
from llmfw.core.models.adapters import bare
from llmfw.core.models.fused_build import ready_to_train
from llmfw.core.schema import AdapterConfig, ModelConfig, TrainerConfig

LORA = AdapterConfig(kind="lora", r=3, alpha=6.0)


def oracle(module: nn.Module, batch) -> Tensor:
    """log_softmax of the model's own logits, gathered."""
    logits = module(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask.long(), position_ids=batch.position_ids
    ).logits
    return torch.log_softmax(logits, -1).flatten(0, 1)[batch.source].gather(1, batch.target[:, None])[:, 0]


def doubled(model: ModelConfig, adapter: AdapterConfig | None = None):
    built = build_model(model, adapter, seed=3)
    built.module.double()
    if (
        adapter is not None
    ):  # B is zero at first: then A's gradient is zero, and a wrong one would not be seen
        with torch.no_grad():
            for name, parameter in built.module.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(generator=torch.Generator().manual_seed(1))
    return built


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize(
    "adapter",
    [None, LORA, replace(LORA, target_modules=["q_proj", "lm_head"])],
    ids=["full", "lora", "lora-head"],
)
def test_logps_equal_the_models_own_in_value_and_gradient(tiny, batch, tied, adapter) -> None:
    built = doubled(tiny(tie_word_embeddings=tied), adapter)
    weights = torch.randn(batch.tokens, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    parameters = [parameter for parameter in built.module.parameters() if parameter.requires_grad]

    ours = LocalPolicy(built.module).logps(batch)
    theirs = oracle(built.module, batch)
    assert ours.dtype == torch.float64
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)

    got = torch.autograd.grad((ours * weights).sum(), parameters)
    wanted = torch.autograd.grad((theirs * weights).sum(), parameters)
    assert len(got) > 0
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
    assert max(float(one.abs().max()) for one in got) > 1e-3


ARCHITECTURES = {
    "gpt2": {
        "model_type": "gpt2",
        "vocab_size": 37,
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "n_positions": 64,
    },
    "gpt_neox": {
        "model_type": "gpt_neox",
        "vocab_size": 37,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    },
    "gptj (a head with a bias)": {
        "model_type": "gptj",
        "vocab_size": 37,
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "rotary_dim": 4,
        "n_positions": 64,
    },
    "gemma2 (soft cap)": {
        "model_type": "gemma2",
        "vocab_size": 37,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "final_logit_softcapping": 2.0,
        "initializer_range": 0.3,
    },
    "cohere (multiplied)": {
        "model_type": "cohere",
        "vocab_size": 37,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "logit_scale": 0.0625,
        "initializer_range": 0.3,
    },
    "granite (divided)": {
        "model_type": "granite",
        "vocab_size": 37,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "logits_scaling": 8.0,
        "initializer_range": 0.3,
    },
    "mamba (no positions)": {
        "model_type": "mamba",
        "vocab_size": 37,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "state_size": 4,
        "initializer_range": 0.3,
    },
    "mixtral": {
        "model_type": "mixtral",
        "vocab_size": 37,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "initializer_range": 0.3,
    },
}


def test_an_attention_that_an_architecture_lacks_is_named_in_one_line() -> None:
    with pytest.raises(
        UsageError,
        match=r"ATTENTION.*Gemma2ForCausalLM has no attention 'sdpa' here; set model.attention=eager",
    ):
        build_model(ModelConfig(name="x", config=ARCHITECTURES["gemma2 (soft cap)"]))


@pytest.mark.parametrize("config", ARCHITECTURES.values(), ids=ARCHITECTURES.keys())
def test_logps_are_right_for_heads_of_many_families(batch, config, caplog) -> None:
    attention = "sdpa" if config["model_type"] in ("gpt_neox", "cohere", "granite", "mixtral") else "eager"
    module = build_model(ModelConfig(name="x", config=config, attention=attention)).module
    if module.get_output_embeddings().bias is not None:
        nn.init.normal_(module.get_output_embeddings().bias)
    policy = LocalPolicy(module)
    rows = (
        replace(batch, mask=torch.ones_like(batch.attention_mask))
        if config["model_type"] == "mamba"
        else batch
    )
    wanted = (
        module(input_ids=rows.input_ids, attention_mask=rows.attention_mask.long()).logits
        if config["model_type"] == "mamba"
        else None
    )
    wanted = (
        oracle(module, rows)
        if wanted is None
        else torch.log_softmax(wanted, -1).flatten(0, 1)[rows.source].gather(1, rows.target[:, None])[:, 0]
    )
    torch.testing.assert_close(policy.logps(rows), wanted, rtol=0, atol=2e-5)
    assert policy._head is not None and "unknown head" not in caplog.text


def test_an_unknown_head_takes_the_models_own_logits_and_says_so(tiny, batch, caplog) -> None:
    built = build_model(tiny())
    own = type(built.module).forward

    class Shifted(type(built.module)):
        def forward(self, *args, **kwargs):
            out = own(self, *args, **kwargs)
            out.logits = out.logits + torch.linspace(0, 3, out.logits.shape[-1])
            return out

    built.module.__class__ = Shifted
    policy = LocalPolicy(built.module)
    torch.testing.assert_close(policy.logps(batch), oracle(built.module, batch), rtol=0, atol=1e-5)
    assert "unknown head" in caplog.text


def test_looking_for_the_head_leaves_modes_and_random_numbers_alone(tiny, batch) -> None:
    built = build_model(tiny(attention_dropout=0.5))
    built.module.train()
    built.module.model.layers[0].eval()
    state = torch.get_rng_state()
    policy = LocalPolicy(built.module)
    policy.module.eval()
    policy.logps(batch)
    assert torch.equal(torch.get_rng_state(), state)
    built.module.train()
    built.module.model.layers[0].eval()
    LocalPolicy(built.module).logps(batch)
    assert built.module.training and not built.module.model.layers[0].training


def test_logps_and_best_are_those_of_the_models_own_logits_in_one_pass(tiny, batch, caplog) -> None:
    for changes in ({}, {"tie_word_embeddings": True}):
        built = doubled(tiny(**changes))
        logps, best = LocalPolicy(built.module).logps_and_best(batch)
        logits = built.module(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask.long(),
            position_ids=batch.position_ids,
        ).logits  # fmt: skip
        torch.testing.assert_close(logps, oracle(built.module, batch).detach(), rtol=0, atol=1e-9)
        assert best.equal(logits.flatten(0, 1)[batch.source].argmax(-1)) and not logps.requires_grad


def test_padding_on_the_left_or_right_gives_equal_logps(tiny, batch_of) -> None:
    module = build_model(tiny()).module.double()
    rows = [((5, 9, 2, 31, 8, 8, 1), 3), ((7, 36, 3, 4), 1), ((11, 12), 1)]
    right = LocalPolicy(module).logps(batch_of(rows))
    left = LocalPolicy(module).logps(batch_of(rows, left=True))
    torch.testing.assert_close(left, right, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("attention", "within"), [("sdpa", 1e-9), ("eager", 1e-6)])
def test_a_four_dimensional_mask_keeps_packed_neighbours_apart(tiny, batch_of, attention, within) -> None:
    """One row holds two texts and two padding positions; each text keeps the log-probs that it has alone.

    transformers' eager attention takes its softmax in float32, whatever the model's dtype: its sums over 4
    and over 9 positions differ by that rounding on some processors.
    """
    first, second = (5, 9, 2, 31), (7, 36, 3)
    module = build_model(replace(tiny(), attention=attention)).module.double()
    alone = torch.cat([LocalPolicy(module).logps(batch_of([(ids, 1)])) for ids in (first, second)])
    owner = torch.tensor([0, 0, 0, 0, 1, 1, 1, -1, -1])
    mask = (owner[:, None] == owner[None]) & (owner >= 0)[:, None] & torch.ones(9, 9, dtype=torch.bool).tril()
    packed = replace(
        batch_of([((*first, *second, 0, 0), 1)]),
        mask=mask[None, None],
        position_ids=torch.tensor([[0, 1, 2, 3, 0, 1, 2, 0, 0]]),
        source=torch.tensor([0, 1, 2, 4, 5]),
        target=torch.tensor([9, 2, 31, 36, 3]),
    )
    got = LocalPolicy(module).logps(packed)
    torch.testing.assert_close(got, alone, rtol=0, atol=within)
    grads = torch.autograd.grad(got.sum(), list(module.parameters()))
    assert all(bool(torch.isfinite(grad).all()) for grad in grads)


@pytest.mark.parametrize(
    "adapter", [None, replace(LORA, target_modules=["lm_head"])], ids=["plain head", "adapted head"]
)
def test_a_batch_that_trains_nothing_gives_no_logps_but_a_graph(tiny, batch_of, adapter) -> None:
    """Every process of a distributed step needs a gradient for every parameter, be it zero."""
    module = build_model(tiny(), adapter).module
    logps = LocalPolicy(module).logps(batch_of([((1, 2, 3), 3)]))
    assert logps.shape == (0,) and logps.requires_grad
    logps.sum().backward()
    grads = [parameter.grad for parameter in module.parameters() if parameter.requires_grad]
    assert len(grads) > 0 and all(grad is not None and float(grad.abs().max()) == 0.0 for grad in grads)


def test_hidden_states_are_those_that_enter_a_layer(tiny, batch) -> None:
    module = build_model(tiny()).module
    policy = LocalPolicy(module)
    states = module.model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask.long(),
        position_ids=batch.position_ids,
        output_hidden_states=True,
    )
    for layer in (0, 1, -1):
        assert torch.equal(policy.hidden_states(batch, layer), states.hidden_states[layer])
    with pytest.raises(UsageError, match=r"no layer 2"):
        policy.hidden_states(batch, 2)


@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe"])
def test_the_router_loss_is_the_architectures_own(batch, kind) -> None:
    config = {
        **ARCHITECTURES["mixtral"],
        "model_type": kind,
        "output_router_logits": True,
        "router_aux_loss_coef": 0.25,
    }
    if kind == "qwen2_moe":
        config |= {"num_experts": 4, "moe_intermediate_size": 24, "shared_expert_intermediate_size": 8}
        del config["num_local_experts"]
    module = build_model(ModelConfig(name="x", config=config)).module
    policy = LocalPolicy(module)
    policy.logps(batch)
    out = module(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask.long(), position_ids=batch.position_ids
    )
    torch.testing.assert_close(policy.auxiliary, 0.25 * out.aux_loss)
    assert policy.auxiliary.requires_grad


def test_without_router_logits_there_is_no_auxiliary_loss(batch) -> None:
    policy = LocalPolicy(build_model(ModelConfig(name="x", config=ARCHITECTURES["mixtral"])).module)
    policy.logps(batch)
    assert policy.auxiliary is None


def test_batch_keys_reach_the_models_forward_and_their_absence_is_named(tiny, batch) -> None:
    module = build_model(tiny()).module
    seen = []
    module.model.register_forward_pre_hook(
        lambda _m, _a, kwargs: seen.append(kwargs["prompt_length"]), with_kwargs=True
    )
    policy = LocalPolicy(module, batch_keys=["prompt_length"])
    lengths = torch.tensor([3, 1, 1])
    policy.logps(replace(batch, extra={"prompt_length": lengths}))
    assert seen[-1] is lengths
    with pytest.raises(PluginError, match=r"prompt_length"):
        policy.logps(batch)


def test_gradient_checkpointing_changes_no_gradient(tiny, batch) -> None:
    plain = build_model(tiny(), LORA, seed=1)
    saving = ready_to_train(build_model(tiny(), LORA, seed=1), TrainerConfig(recompute="layers", fused="off"))
    grads = []
    for built in (plain, saving):
        built.module.train()
        LocalPolicy(built.module).logps(batch).sum().backward()
        grads.append({name: p.grad for name, p in built.module.named_parameters() if p.grad is not None})
    assert bare(saving.module).is_gradient_checkpointing
    assert grads[0].keys() == grads[1].keys() and len(grads[0]) > 0
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad)
