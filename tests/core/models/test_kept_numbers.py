"""How many numbers a token leaves behind in each layer for the backward pass; docs/models.md states them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from llmfw.core.models import fused_functions
from llmfw.core.models.fused import Fused, fuse
from llmfw.core.models.recompute import recompute

SMOLLM2: dict[str, Any] = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "vocab_size": 8,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
    "attn_implementation": "sdpa",
}
TOKENS = 32
KEPT = {"off": 11147, "none": 8459, "elementwise": 5771, "layers": 576}
"""By hand, D = 576, I = 1536, keys and values 192 each, 9 heads. off: two norms keep 3 D + 1 each (x, the
normalised x, y) and the MLP 4 I; none: the norms 2 D + 1, the MLP 3 I; elementwise: D + 1 and 2 I. To each
the attention: queries, keys and values as it got them and its output, 2 D + 2 * 192, and 9 log-sum-exps.
layers: x.
"""


def test_the_numbers_worked_out_by_hand_are_these() -> None:
    width, inside, attention = 576, 1536, 2 * 576 + 2 * 192 + 9
    assert KEPT["off"] == 2 * (3 * width + 1) + 4 * inside + attention
    assert KEPT["none"] == 2 * (2 * width + 1) + 3 * inside + attention
    assert KEPT["elementwise"] == 2 * (width + 1) + 2 * inside + attention
    assert KEPT["layers"] == width


def _kept(layers: int, policy: str, monkeypatch: pytest.MonkeyPatch) -> float:
    """Numbers a token that the forward pass keeps, each storage once, without the parameters."""
    config = AutoConfig.for_model("llama", num_hidden_layers=layers, **SMOLLM2)
    model: Any = AutoModelForCausalLM.from_config(config).train()
    fused = Fused() if policy == "off" else fuse(model)
    recompute(model, "none" if policy == "off" else policy, fused)
    parameters = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    storages: dict[int, Tensor] = {}

    def note(kept: Any) -> Any:
        if isinstance(kept, Tensor) and kept.untyped_storage()._cdata not in parameters:
            storages[kept.untyped_storage()._cdata] = kept
        return kept

    pack = fused_functions._pack
    monkeypatch.setattr(fused_functions, "_pack", lambda kept: note(pack(kept)))
    ids = torch.randint(1, 8, (1, TOKENS))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda kept: kept):
        model.model(input_ids=ids, use_cache=False)
    return sum(kept.untyped_storage().nbytes() for kept in storages.values()) / 4 / TOKENS


@pytest.mark.parametrize("policy", KEPT)
def test_a_layer_of_smollm2s_shape_keeps_what_was_worked_out(policy, monkeypatch) -> None:
    one, two = (_kept(layers, policy, monkeypatch) for layers in (1, 2))
    assert two - one == KEPT[policy]


def test_the_docs_state_these_numbers() -> None:
    page = (Path(__file__).parents[3] / "docs" / "models.md").read_text(encoding="utf-8")
    for number in KEPT.values():
        assert f"| {number:,} |" in page
