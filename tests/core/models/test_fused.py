"""What is found in real architectures, that it changes no answer, and what is left alone."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from llmfw.core.models.fused import FOUND, fuse

SIZE: dict[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 50,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "max_position_embeddings": 64,
    "attn_implementation": "sdpa",
}
FOUND_IN = {
    "llama": (5, 2, 2),
    "mistral": (5, 2, 2),
    "qwen2": (5, 2, 2),
    "qwen3": (9, 2, 2),  # and two norms of queries and keys in each layer
    "gemma": (5, 2, 2),
    "gemma2": (9, 2, 2),
    "phi3": (5, 2, 2),  # gate and up are one product
    "olmo2": (9, 2, 2),
    "glm": (5, 2, 0),  # its rotation takes neighbours for a pair
    "gpt_neox": (0, 0, 2),  # layer norms, a plain MLP
}
"""Architecture -> norms, gated MLPs and rotary attentions of its two layers and the end."""


def model_of(kind: str, **changes: Any) -> Any:
    torch.manual_seed(1)
    attention = {"attn_implementation": "eager"} if kind == "gemma2" else {}
    config = AutoConfig.for_model(kind, **{**SIZE, **attention, **changes})
    model: Any = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():  # norms begin with ones, or zeros
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.train()


def trained(model: Any, length: int = 21) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    ids = torch.randint(3, 50, (2, length), generator=torch.Generator().manual_seed(3))
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    return loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_close(ours: dict[str, Tensor], theirs: dict[str, Tensor], close: float) -> None:
    assert ours.keys() == theirs.keys()
    for name, grad in theirs.items():
        assert (ours[name] - grad).norm() <= close * grad.norm() + 1e-9, name


@pytest.mark.parametrize("kind", FOUND_IN)
def test_architectures_give_the_same_loss_to_the_bit_and_the_same_gradients(kind: str) -> None:
    plain = model_of(kind)
    fused = deepcopy(plain)
    counts = fuse(fused).counts
    assert (counts["norms"], counts["gated MLPs"], counts["rotary attentions"]) == FOUND_IN[kind]
    (loss, grads), (expected, wanted) = trained(fused), trained(plain)
    assert torch.equal(loss, expected)
    assert_close(grads, wanted, 2e-6)


def test_in_float64_gradients_differ_by_what_norms_in_float32_round() -> None:
    """transformers' norm works in float32 whatever the model's dtype, so that is all that may differ; without
    the norms the equality is 1e-12.
    """
    plain = model_of("llama").double()
    fused, rest = deepcopy(plain), deepcopy(plain)
    fuse(fused)
    fuse(rest, [part for part in rest.modules() if type(part).__name__ == "LlamaRMSNorm"])
    loss, grads = trained(plain)
    assert torch.equal(trained(fused)[0], loss)
    assert_close(trained(fused)[1], grads, 2e-6)
    assert_close(trained(rest)[1], grads, 1e-12)


def test_bfloat16_answers_stay_the_same_to_the_bit() -> None:
    plain = model_of("llama").bfloat16()
    fused = deepcopy(plain)
    fuse(fused)
    (loss, grads), (expected, wanted) = trained(fused), trained(plain)
    assert torch.equal(loss, expected)
    assert_close(grads, wanted, 0.05)


def test_adapters_train_alike_with_dropout_drawn_alike() -> None:
    torch.manual_seed(0)
    plain: Any = get_peft_model(
        model_of("llama"),
        LoraConfig(r=2, target_modules="all-linear", lora_dropout=0.3, init_lora_weights=False),
    )
    fused = deepcopy(plain)
    assert fuse(fused).counts["gated MLPs"] == 2
    results = []
    for model in (plain, fused):
        torch.manual_seed(7)
        results.append(trained(model))
    assert torch.equal(results[0][0], results[1][0])
    assert_close(results[1][1], results[0][1], 2e-6)


def test_names_answers_and_copies_stay_what_they_are() -> None:
    model = model_of("llama")
    before, names = type(model.model.norm), list(model.state_dict())
    state = torch.get_rng_state()
    fuse(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert list(model.state_dict()) == names and model.training
    assert isinstance(model.model.norm, before) and type(model.model.norm).__name__ == before.__name__
    copied = deepcopy(model)
    copied.model.layers[0].mlp.gate_proj.weight.data.zero_()  # the copy calls its own parts, not the model's
    assert copied.model.layers[0].mlp(torch.ones(1, 24)).abs().max() == 0
    assert model.model.layers[0].mlp(torch.ones(1, 24)).abs().max() > 0


def test_doing_it_twice_is_doing_it_once() -> None:
    model = model_of("llama")
    assert fuse(model).counts.total() == 9
    assert fuse(model).counts.total() == 0


def test_generated_tokens_are_the_same() -> None:
    plain = model_of("llama").eval()
    fused = deepcopy(plain)
    fuse(fused)
    ids = torch.randint(3, 50, (2, 20), generator=torch.Generator().manual_seed(3))
    said = [m.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0) for m in (plain, fused)]
    assert torch.equal(*said)


def _hook(part: nn.Module) -> None:
    part.register_forward_hook(lambda _m, _a, made: made * 2)


def _pre_hook(part: nn.Module) -> None:
    part.register_forward_pre_hook(lambda _m, given: (given[0] * 2,))


def _own_forward(part: Any) -> None:
    plain = part.forward
    part.forward = lambda x: plain(x) * 2


def _parametrised(part: nn.Module) -> None:
    class Double(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2

    torch.nn.utils.parametrize.register_parametrization(part, "weight", Double())


@pytest.mark.parametrize("meddle", [_hook, _pre_hook, _own_forward, _parametrised])
def test_a_meddled_norm_is_left_alone_and_answers_as_before(meddle) -> None:
    plain = model_of("llama")
    meddle(plain.model.layers[0].input_layernorm)
    expected, grads = trained(plain)
    assert fuse(plain).counts["norms"] == 4
    assert not hasattr(plain.model.layers[0].input_layernorm, FOUND)
    loss, found = trained(plain)
    assert torch.equal(loss, expected)
    assert_close(found, grads, 2e-6)


@pytest.mark.parametrize("where", ["input_layernorm", "mlp", "mlp.act_fn", "mlp.down_proj", "self_attn"])
def test_hooks_that_come_later_are_heard(where: str) -> None:
    plain = model_of("llama")
    fused = deepcopy(plain)
    fuse(fused)
    heard: list[Tensor] = []

    def hook(_module: Any, _given: Any, made: Any) -> Any:
        heard.append(made[0])
        return (made[0] * 2, *made[1:]) if isinstance(made, tuple) else made * 2

    for model in (plain, fused):
        model.model.layers[1].get_submodule(where).register_forward_hook(hook)
    (expected, wanted), (loss, grads) = trained(plain), trained(fused)
    assert len(heard) == 2 and torch.equal(*heard)
    assert torch.equal(loss, expected)
    assert_close(grads, wanted, 2e-6)


def test_what_a_caller_leaves_out_stays() -> None:
    model = model_of("llama")
    counts = fuse(model, [model.model.layers[0]]).counts
    assert (counts["norms"], counts["gated MLPs"], counts["rotary attentions"]) == (3, 1, 1)


class _Scaled(nn.Module):
    """Nearly a norm: twice as large beyond a size that no probe of ones would find."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = 1e-6

    def forward(self, x: Tensor) -> Tensor:
        y = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.eps)
        return (y.abs() ** 1.0001 * y.sign()).to(x.dtype) * self.weight


def test_what_is_only_nearly_a_norm_is_left_alone() -> None:
    model = nn.Sequential(_Scaled(8), nn.LayerNorm(8), nn.Linear(8, 8))
    assert fuse(model).counts.total() == 0


class _Plain(nn.Module):
    def __init__(self, order: str) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(12, 8)
        self.activation, self.order = nn.SiLU(), order

    def forward(self, x: Tensor) -> Tensor:
        if self.order == "sum":
            return self.c(self.activation(self.a(x)) + self.b(x))
        if self.order == "twice":
            return self.c(self.activation(self.a(x)) * self.b(x)) * 2
        return self.c(self.activation(self.a(x)) * self.b(x))


@pytest.mark.parametrize(("order", "count"), [("product", 1), ("sum", 0), ("twice", 0)])
def test_a_gated_mlp_is_known_by_what_it_does_not_by_its_names(order: str, count: int) -> None:
    assert fuse(nn.Sequential(_Plain(order))).counts["gated MLPs"] == count
