"""Which layout a run's batches get."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, MambaConfig, MixtralConfig

from llmfw.core.data import Example, TokenSequence
from llmfw.core.errors import ConflictError, UsageError
from llmfw.core.models.policy import LocalPolicy
from llmfw.core.schema import Root
from llmfw.core.training.layout import Layer, Layouts, layouts_of, settle, shared_share

LLAMA = LlamaConfig(
    vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2,
)  # fmt: skip


def plan(batch_kind: str = "preference", refuses: tuple[str, ...] = ()) -> Any:
    surgery = SimpleNamespace(plugin="toy", value=SimpleNamespace(name="cut", refuses=refuses))
    loss = SimpleNamespace(batch_kind=batch_kind)
    return SimpleNamespace(one=lambda hook: loss, answers={"llmfw_surgeries": (surgery,)})


def settings(layout: str = "auto", packing: bool = False, attention: str = "sdpa") -> Root:
    root = Root()
    root.trainer.layout, root.data.packing, root.model.attention = layout, packing, attention
    return root


def pair(prompt: int, chosen: int, rejected: int, name: str = "p") -> Example:
    sides = tuple(
        TokenSequence(
            (*range(2, 2 + prompt), *range(first, first + count)), (False,) * prompt + (True,) * count
        )
        for first, count in ((20, chosen), (21, rejected))
    )
    return Example(id=name, kind="preference", sequences=sides, extra={"prompt_length": (prompt, prompt)})


@pytest.mark.parametrize(
    ("given", "config", "allowed", "without"),
    [
        (plan(), LLAMA, ("shared_prompt", "packed", "padded"), set()),
        (plan("text"), LLAMA, ("packed", "padded"), set()),
        (plan(refuses=("shared_prompt",)), LLAMA, ("packed", "padded"), {"shared_prompt"}),
        (plan(refuses=("packing",)), LLAMA, ("padded",), {"packed", "shared_prompt"}),
        (plan(refuses=("right_padding",)), LLAMA, ("shared_prompt", "packed"), set()),
        (plan(), MambaConfig(), ("padded",), {"packed", "shared_prompt"}),
        (plan(), MixtralConfig(output_router_logits=True), ("packed", "padded"), {"shared_prompt"}),
    ],
)
def test_plugins_and_model_decide_what_may_be(given, config, allowed, without) -> None:
    found = layouts_of(given, settings(), config)
    assert found.allowed == allowed and set(found.why_not) == without
    assert (found.note() is None) == (not without)


def test_packed_units_have_no_padded_form() -> None:
    assert layouts_of(plan("text"), settings(packing=True), LLAMA).allowed == ("packed",)
    with pytest.raises(ConflictError, match=r"trainer.layout: padded rows and data.packing contradict"):
        layouts_of(plan("text"), settings("padded", packing=True), LLAMA)


def test_a_layout_that_is_asked_for_is_had_or_refused() -> None:
    assert layouts_of(plan(), settings("packed"), LLAMA).allowed == ("packed",)
    with pytest.raises(UsageError, match="only preference pairs have a prompt to share"):
        layouts_of(plan("text"), settings("shared_prompt"), LLAMA)
    with pytest.raises(ConflictError, match="'cut' of plugin 'toy' can't be right with it; set"):
        layouts_of(plan(refuses=("packing",)), settings("packed"), LLAMA)


def test_the_share_of_a_second_copy_is_counted() -> None:
    """Pairs of 6 + 2 and 6 + 4 tokens (18, of which 6 are a copy), and 1 + 3 and 1 + 3 (8, 1): 7 of 26."""
    assert shared_share([pair(6, 2, 4), pair(1, 3, 3)]) == pytest.approx(7 / 26)


def settled(layouts: Layouts, examples: list[Example], config: Any = LLAMA) -> tuple[str, str]:
    torch.manual_seed(0)
    policy = LocalPolicy(AutoModelForCausalLM.from_config(config, attn_implementation="sdpa"))
    layer = Layer(0)
    return settle(layouts, policy, examples, layer, longest=30), layer.layout


ALL = Layouts(("shared_prompt", "packed", "padded"))


def test_prompts_are_shared_where_that_saves_enough() -> None:
    assert settled(ALL, [pair(6, 2, 4)]) == (
        "layout shared prompt (33% of the positions are a prompt's second copy)",
        "shared_prompt",
    )
    told, layout = settled(ALL, [pair(1, 14, 14)])
    assert layout == "packed" and "shared prompts wouldn't pay: 3% of the positions" in told


def test_what_is_asked_for_is_done_also_where_it_does_not_pay() -> None:
    assert settled(Layouts(("shared_prompt",)), [pair(1, 14, 14)])[1] == "shared_prompt"


def test_a_model_that_mixes_samples_gets_padded_rows_and_says_so(capsys) -> None:
    from transformers import Lfm2Config

    mixing = Lfm2Config(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, layer_types=["conv", "full_attention"], initializer_range=0.3,
    )  # fmt: skip
    assert settled(ALL, [pair(6, 2, 4)], mixing)[1] == "padded"
    assert "warning: batches aren't shared prompt: Lfm2ForCausalLM" in "".join(capsys.readouterr())
    with pytest.raises(ConflictError, match="PACKING-LEAK"):
        settled(Layouts(("packed",)), [pair(6, 2, 4)], mixing)
