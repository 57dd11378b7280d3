"""Rows without padding: every layout gives the log-probs and the gradients that padded rows give."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Qwen2Config,
)

from llmfw.core.batch import Batch, Span, Spans
from llmfw.core.data import Example, TokenSequence, collate
from llmfw.core.models import LocalPolicy, spans
from llmfw.core.models.spans import Run, Sight, alike, runs_of, sees_spans
from llmfw.core.models.varlen import ragged, with_varlen

SMALL = {
    "vocab_size": 48, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "bos_token_id": 0, "eos_token_id": 0, "initializer_range": 0.3,
}  # fmt: skip
CONFIGS: dict[str, Any] = {
    "gpt2": GPT2Config(
        vocab_size=48, n_positions=64, n_embd=32, n_layer=2, n_head=4, initializer_range=0.3, bos_token_id=0,
        eos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    ),
    "llama": LlamaConfig(**SMALL),
    "mistral, window 6": MistralConfig(**SMALL, sliding_window=6),
    "qwen2": Qwen2Config(**SMALL),
    "gemma3, window 5": Gemma3TextConfig(**SMALL, head_dim=8, sliding_window=5, pad_token_id=0),
}  # fmt: skip
LENGTHS = [(5, 12, 4), (3, 4, 11), (7, 6, 6), (1, 1, 9)]
"""(prompt, chosen, rejected) tokens."""


class WideNorm(nn.Module):
    """A norm over the last dimension in its inputs' own precision: transformers' compute in float32."""

    def __init__(self, norm: Any, plus_one: bool) -> None:
        super().__init__()
        self.weight, self.plus_one = norm.weight, plus_one
        self.eps = getattr(norm, "variance_epsilon", getattr(norm, "eps", 1e-6))

    def forward(self, states: Tensor) -> Tensor:
        scaled = states * torch.rsqrt(states.square().mean(-1, keepdim=True) + self.eps)
        return scaled * (self.weight + 1 if self.plus_one else self.weight)


def built(name: str, dtype: torch.dtype = torch.float64, attention: str = "sdpa") -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation=attention).to(dtype)
    if dtype == torch.float64:
        norms = [key for key, part in model.named_modules() if type(part).__name__.endswith("RMSNorm")]
        for key in norms:
            model.set_submodule(key, WideNorm(model.get_submodule(key), name.startswith("gemma")))
    return model


def pairs(kind: str = "preference") -> list[Example]:
    draw = random.Random(1)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(48) for _ in range(count))

    found = []
    for number, (prompt, *answers) in enumerate(LENGTHS):
        begin = ids(prompt)
        sides = [
            TokenSequence((*begin, *ids(count)), (False,) * prompt + (True,) * count) for count in answers
        ]
        sides = sides if kind == "preference" else sides[:1]
        found.append(Example(id=str(number), kind=kind, sequences=tuple(sides)))  # type: ignore[arg-type]
    return found


def computed(policy: LocalPolicy, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-probs, and the gradients of a sum that weights every token differently."""
    policy.module.zero_grad()
    logps = policy.logps(batch)
    (logps * torch.sin(torch.arange(len(logps), dtype=logps.dtype))).sum().backward()
    named = policy.module.named_parameters()
    return logps.detach(), {name: p.grad.clone() for name, p in named if p.grad is not None}


def worst(one: Any, other: Any) -> float:
    """The largest difference of log-probs or of any gradient, as a share of the largest gradient."""
    assert one[1].keys() == other[1].keys()
    scale = max(float(value.abs().max()) for value in other[1].values())
    gradients = max(float((one[1][name] - other[1][name]).abs().max()) for name in one[1])
    return max(float((one[0] - other[0]).abs().max()), gradients / scale)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("layout", ["packed", "shared_prompt"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_a_layout_gives_what_padded_rows_give(name, layout, dtype, bound) -> None:
    """Of every log-prob and every gradient: 1e-9 in float64, 1e-5 of the largest in float32."""
    policy = LocalPolicy(built(name, dtype))
    padded = computed(policy, collate(pairs(), 0))
    laid = collate(pairs(), 0, layout=layout)
    assert laid.input_ids.shape[0] == 1 and laid.spans is not None
    assert worst(computed(policy, laid), padded) < bound
    assert sees_spans(policy.module)


@pytest.mark.parametrize("layout", ["packed", "shared_prompt"])
def test_attention_that_takes_no_spans_gets_a_mask(layout) -> None:
    policy = LocalPolicy(built("gpt2", attention="eager"))
    padded = computed(policy, collate(pairs(), 0))
    assert worst(computed(policy, collate(pairs(), 0, layout=layout)), padded) < 1e-9
    assert not sees_spans(policy.module)


def test_a_model_that_drops_the_spans_on_the_way_gets_a_mask() -> None:
    """Its layers are called without further arguments, so attention gets none: seen at the first row."""

    class Deaf(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, *args: Any, spans: Any = None, **kwargs: Any) -> Any:
            return self.layer(*args, **kwargs)

    model = built("llama")
    model.model.layers = nn.ModuleList(Deaf(layer) for layer in model.model.layers)
    policy = LocalPolicy(model)
    padded = computed(policy, collate(pairs(), 0))
    assert worst(computed(policy, collate(pairs(), 0, layout="shared_prompt")), padded) < 1e-9
    assert policy._by_mask


@pytest.mark.parametrize("layout", ["packed", "shared_prompt"])
def test_layers_that_are_computed_again_in_the_backward_pass_see_the_same_spans(layout) -> None:
    model = built("llama").train()
    policy = LocalPolicy(model)
    plain = computed(policy, collate(pairs(), 0, layout=layout))
    model.gradient_checkpointing_enable()
    again = computed(policy, collate(pairs(), 0, layout=layout))
    assert torch.equal(plain[0], again[0])
    assert all(torch.equal(plain[1][name], again[1][name]) for name in plain[1])


@pytest.mark.parametrize("layout", ["packed", "shared_prompt"])
def test_under_lora_the_gradients_of_the_adapter_are_those_of_padded_rows(layout) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
    policy = LocalPolicy(get_peft_model(built("llama"), config).double())
    padded = computed(policy, collate(pairs(), 0))
    assert padded[1] and all("lora" in name for name in padded[1])
    assert worst(computed(policy, collate(pairs(), 0, layout=layout)), padded) < 1e-9


def test_text_packs_too_and_hidden_states_stand_where_the_tokens_do() -> None:
    policy, texts = LocalPolicy(built("llama")), pairs("text")
    padded, packed = collate(texts, 0), collate(texts, 0, layout="packed")
    assert worst(computed(policy, packed), computed(policy, padded)) < 1e-9
    for layer in (1, -1):
        rows = policy.hidden_states(padded, layer)[padded.token_mask]
        assert torch.allclose(policy.hidden_states(packed, layer)[0], rows, atol=1e-9, rtol=0)


def test_the_load_balancing_loss_of_packed_rows_is_that_of_padded_ones() -> None:
    torch.manual_seed(0)
    config = MixtralConfig(
        **SMALL, num_local_experts=4, num_experts_per_tok=2, output_router_logits=True, sliding_window=None
    )
    policy = LocalPolicy(AutoModelForCausalLM.from_config(config))
    found = []
    for layout in ("padded", "packed"):
        policy.logps(collate(pairs("text"), 0, layout=layout))  # type: ignore[arg-type]
        found.append(policy.auxiliary)
    assert torch.allclose(found[0], found[1], rtol=1e-5)


def test_a_prompt_and_its_first_answer_are_one_causal_call() -> None:
    """[prompt 0-3 | chosen 3-5 | rejected 5-9]: one call over 0-5; the other answer sees 0-3 and itself."""
    spans = Spans(spans=(Span(0, 3), Span(3, 5, 0), Span(5, 9, 0), Span(9, 11)), tokens=14)
    assert runs_of(spans) == (
        Run(0, 5, ((0, 5),)),
        Run(5, 9, ((0, 3), (5, 9))),
        Run(9, 11, ((9, 11),)),
    )


def test_runs_of_one_length_side_by_side_are_the_rows_of_one_call() -> None:
    """Four texts of 3 tokens and one of 2; a second answer sees more than itself and is no text's like."""
    spans = Spans(spans=(*(Span(n, n + 3) for n in (0, 3, 6, 9)), Span(12, 14)), tokens=14)
    assert alike(runs_of(spans)) == ((Run(0, 3, ((0, 3),)), 4), (Run(12, 14, ((12, 14),)), 1))
    pair = Spans(spans=(Span(0, 2), Span(2, 4, 0), Span(4, 6, 0), Span(6, 10)), tokens=12)
    assert [count for _, count in alike(runs_of(pair))] == [1, 1, 1]


@pytest.mark.parametrize("name", CONFIGS)
def test_texts_of_one_length_give_what_padded_rows_give_by_fewer_calls(name, monkeypatch) -> None:
    """Lengths 7 7 7 4 9 9: three calls a layer."""
    policy, examples = LocalPolicy(built(name)), texts(7, 7, 7, 4, 9, 9)
    padded = computed(policy, collate(examples, 0))
    policy.logps(collate(examples, 0, layout="packed"))
    calls: list[int] = []
    own = spans.sdpa_attention_forward

    def counted(module: Any, query: Tensor, *args: Any, **kwargs: Any) -> Any:
        calls.append(query.shape[0])
        return own(module, query, *args, **kwargs)

    monkeypatch.setattr(spans, "sdpa_attention_forward", counted)
    assert worst(computed(policy, collate(examples, 0, layout="packed")), padded) < 1e-9
    assert calls == [3, 1, 2] * 2


def test_a_line_of_three_spans_sees_all_before_it() -> None:
    """Span 3 follows span 2, whose parent 0 isn't beside it: its keys are 0-2, 4-6 and its own 6-7."""
    spans = Spans(spans=(Span(0, 2), Span(2, 4, 0), Span(4, 6, 0), Span(6, 7, 2)), tokens=9)
    assert runs_of(spans)[-1] == Run(6, 7, ((0, 2), (4, 7)))
    row = spans.mask()[0, 0, 6]
    assert row.tolist() == [True, True, False, False, True, True, True]


def test_a_window_reaches_as_far_back_as_in_a_row_of_its_own() -> None:
    """Two queries at places 2 and 3 of four keys, window 2: they see {1, 2} and {2, 3}."""
    sight = Sight(Spans(spans=(Span(0, 2),), tokens=2), torch.device("cpu"))
    mask = sight.mask(Run(5, 7, ((0, 2), (5, 7))), window=2)
    assert mask is not None and mask.tolist() == [[False, True, True, False], [False, False, True, True]]


@pytest.fixture
def kernel() -> Iterator[Any]:
    """What torch's varlen kernel is documented to compute, run by run, with the same signature."""

    def call(q, k, v, cu_q, cu_k, max_q, max_k, *, scale, window_size, enable_gqa) -> Tensor:
        parts = []
        for number in range(len(cu_q) - 1):
            (a, b), (c, d) = cu_q[number : number + 2].tolist(), cu_k[number : number + 2].tolist()
            assert b - a <= max_q and d - c <= max_k
            rows = torch.arange(d - c - (b - a), d - c)[:, None] - torch.arange(d - c)[None]
            sees = (rows >= 0) if window_size[0] < 0 else (rows >= 0) & (rows <= window_size[0])
            queries, keys, values = (x.transpose(0, 1)[None] for x in (q[a:b], k[c:d], v[c:d]))
            out = nn.functional.scaled_dot_product_attention(
                queries, keys, values, attn_mask=sees, scale=scale, enable_gqa=enable_gqa
            )
            parts.append(out[0].transpose(0, 1))
        return torch.cat(parts)

    return call


@pytest.mark.parametrize("window", [None, 3])
def test_one_call_over_ragged_rows_is_the_calls_run_by_run(kernel, window) -> None:
    """What is handed to the GPU's kernel, computed here by a stand-in with its signature: values and
    gradients equal those of the whole row under its mask.
    """
    spans = Spans(spans=(Span(0, 3), Span(3, 5, 0), Span(5, 9, 0), Span(9, 11)), tokens=14)
    torch.manual_seed(0)
    q = torch.randn(1, 4, 11, 8, dtype=torch.float64, requires_grad=True)
    k, v = (torch.randn(1, 2, 11, 8, dtype=torch.float64, requires_grad=True) for _ in range(2))
    rows = ragged(runs_of(spans), torch.device("cpu"))
    assert rows.queries.tolist() == [0, 5, 9, 11] and rows.keys.tolist() == [0, 5, 12, 14]
    assert rows.longest == (5, 7)
    ours = with_varlen(q, k, v, rows, scaling=0.3, window=window, kernel=kernel)
    sees = spans.mask()
    if window is not None:
        place = torch.tensor([0, 1, 2, 3, 4, 3, 4, 5, 6, 0, 1])
        sees = sees & (place[:, None] - place[None] < window)
    whole = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=sees, scale=0.3, enable_gqa=True)
    weights = torch.randn(1, 11, 4, 8, dtype=torch.float64)
    found = [torch.autograd.grad((out * weights).sum(), (q, k, v)) for out in (ours, whole.transpose(1, 2))]
    assert torch.allclose(ours, whole.transpose(1, 2), atol=1e-12, rtol=0)
    assert all(torch.allclose(a, b, atol=1e-12, rtol=0) for a, b in zip(*found, strict=True))


def test_the_head_is_looked_for_on_a_few_tokens_of_a_row_without_padding() -> None:
    """Four pairs of 26, 21, 26 and 12 tokens are one row of 85; 16 tokens show what the head is."""
    model = built("llama")
    seen: list[tuple[int, ...]] = []
    model.register_forward_pre_hook(
        lambda _module, _args, given: seen.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    batch = collate(pairs(), 0, layout="packed")
    LocalPolicy(model).logps(batch)
    assert batch.input_ids.shape == (1, 85) and seen == [(1, 16)]


def texts(*lengths: int) -> list[Example]:
    """Texts of so many tokens, all trained but the first."""
    draw = random.Random(2)
    found = []
    for number, length in enumerate(lengths):
        ids = tuple(draw.randrange(48) for _ in range(length))
        tokens = TokenSequence(ids, (False,) + (True,) * (length - 1))
        found.append(Example(id=str(number), kind="text", sequences=(tokens,)))
    return found


def _gradients_of_slices(samples: int) -> int:
    """How many gradients of slices, each as long as its row, a backward pass over so many samples makes."""
    examples = texts(*([8, 9] * (samples // 2)))
    found = LocalPolicy(built("llama")).logps(collate(examples, 0, layout="packed")).sum()
    with torch.profiler.profile() as profiler:
        found.backward()
    return sum(event.count for event in profiler.key_averages() if event.key == "aten::slice_backward")


def test_the_gradient_of_a_row_is_not_written_once_for_every_span() -> None:
    """Such gradients come from the rotary positions, two halves a layer; how many spans there are is nothing
    to them. Three for each of 30 more spans and two layers would be 180 more.
    """
    assert _gradients_of_slices(40) == _gradients_of_slices(10)
