"""Encoder-decoders behind the façade: class, ids, log-probs and gradients, against transformers' own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from llmfw.core.batch import Batch
from llmfw.core.data import Example, TokenSequence, collate
from llmfw.core.errors import PluginError, UsageError
from llmfw.core.models import (
    LocalPolicy,
    Sides,
    auto_class,
    is_encoder_decoder,
    resolve_model,
    sides_of,
    with_ids,
)
from llmfw.core.models.byte_level import byte_tokenizer
from llmfw.core.models.reference_cache import example_key
from llmfw.core.schema import ModelConfig
from tests.toys.encoder_decoder import BART, MT5, PEGASUS, T5, make

KINDS = [
    pytest.param(config, id=name)
    for name, config in {
        "t5": T5,
        "t5-untied": {**T5, "tie_word_embeddings": False, "feed_forward_proj": "gated-gelu"},
        "mt5": MT5,
        "bart": BART,
        "pegasus": PEGASUS,
        "marian": {**BART, "model_type": "marian", "pad_token_id": 0, "decoder_start_token_id": 0},
    }.items()
]
ROWS = [((5, 6, 7, 1), (0, 7, 9, 1)), ((5, 6, 7, 9, 11, 1), (0, 8, 1)), ((9, 1), (0, 11, 12, 13, 14, 1))]
"""(what the encoder reads, the decoder's row): 3, 2 and 5 trained tokens."""


def _examples(rows: Any = ROWS) -> list[Example]:
    return [
        Example(
            id=str(number),
            kind="text",
            sequences=(TokenSequence(ids, (False, *[True] * (len(ids) - 1)), read),),
        )
        for number, (read, ids) in enumerate(rows)
    ]


def _model(config: dict[str, Any], dtype: torch.dtype = torch.float64) -> Any:
    model = make(config, dtype=dtype, wide=0.3)
    if hasattr(model, "final_logits_bias"):
        model.final_logits_bias.copy_(torch.linspace(-1, 1, model.final_logits_bias.numel()))
    return model


def _mean_loss(model: Any, reads: list[Any], writes: list[Any]) -> torch.Tensor:
    """transformers' own mean cross entropy over labels, -100 where padded; the model shifts them itself."""
    width = [max(map(len, side)) for side in (reads, writes)]
    ids = torch.tensor([[*read, *[0] * (width[0] - len(read))] for read in reads])
    mask = torch.tensor([[1] * len(read) + [0] * (width[0] - len(read)) for read in reads])
    labels = torch.tensor([[*write, *[-100] * (width[1] - len(write))] for write in writes])
    model.config.decoder_start_token_id, model.config.pad_token_id = 0, 0
    return model(input_ids=ids, attention_mask=mask, labels=labels).loss


@pytest.mark.parametrize("config", KINDS)
def test_the_log_probs_are_the_models_own_loss(config: dict[str, Any]):
    """10 trained tokens: minus their mean log-prob is the loss that transformers computes from the labels."""
    for dtype, near in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        model = _model(config, dtype)
        policy = LocalPolicy(model)
        logps = policy.logps(collate(_examples(), 0))
        assert logps.shape == (10,) and policy._head is not None
        own = _mean_loss(model, [read for read, _ in ROWS], [ids[1:] for _, ids in ROWS])
        assert -logps.mean().item() == pytest.approx(own.item(), abs=near)


@pytest.mark.parametrize("config", KINDS)
def test_the_gradients_are_those_of_the_models_own_loss(config: dict[str, Any]):
    model, other = _model(config), _model(config)
    LocalPolicy(model).logps(collate(_examples(), 0)).mean().neg().backward()
    _mean_loss(other, [read for read, _ in ROWS], [ids[1:] for _, ids in ROWS]).backward()
    pairs = zip(model.named_parameters(), other.parameters(), strict=True)
    for (name, one), its in pairs:
        assert (one.grad is None) == (its.grad is None), name
        if one.grad is not None:
            assert torch.allclose(one.grad, its.grad, atol=1e-9), name


@pytest.mark.parametrize("config", KINDS)
def test_padding_and_the_order_of_a_batch_do_not_matter(config: dict[str, Any]):
    policy = LocalPolicy(_model(config))
    together = policy.logps(collate(_examples(), 0)).split([3, 2, 5])
    turned = policy.logps(collate(_examples()[::-1], 0, pad_to_multiple=8)).split([5, 2, 3])
    for one, two, example in zip(together, turned[::-1], _examples(), strict=True):
        alone = policy.logps(collate([example], 0))
        assert torch.allclose(one, alone, atol=1e-12) and torch.allclose(two, alone, atol=1e-12)


def test_a_pair_shares_its_encoder_row_and_its_gradient():
    """Two answers to one prompt: the encoder's row is read once, and gets the sum of both gradients."""
    model, other = _model(T5), _model(T5)
    pair = Example(
        id="p",
        kind="preference",
        sequences=tuple(
            TokenSequence(ids, (False, *[True] * (len(ids) - 1)), (5, 6, 1))
            for ids in ((0, 7, 1), (0, 8, 9, 1))
        ),
    )
    batch = collate([pair], 0)
    assert batch.encoder_ids.tolist() == [[5, 6, 1]] and batch.encoder_row.tolist() == [0, 0]
    assert batch.real_tokens == 3 + 3 + 4  # the prompt counts once
    apart = replace(
        batch,
        encoder_ids=batch.encoder_ids[[0, 0]],
        encoder_mask=batch.encoder_mask[[0, 0]],
        encoder_row=None,
    )
    one, two = LocalPolicy(model).logps(batch), LocalPolicy(other).logps(apart)
    assert torch.allclose(one, two, atol=1e-12)
    one.sum().backward()
    two.sum().backward()
    for left, right in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.allclose(left.grad, right.grad, atol=1e-9)


def test_t5s_tied_head_is_scaled_and_barts_has_a_bias():
    """T5 divides its last state by sqrt(32) where head and embedding are one (arXiv 1910.10683's code)."""
    t5, bart = LocalPolicy(_model(T5)), LocalPolicy(_model(BART))
    for policy in (t5, bart):
        policy.logps(collate(_examples(), 0))
    assert t5._head.scale == pytest.approx(32**-0.5) and t5._head.bias is None
    assert bart._head.scale == 1.0 and bart._head.bias.shape == (261,)


def test_an_unknown_head_falls_back_to_the_models_own_logits(caplog: pytest.LogCaptureFixture):
    plain, model = _model(MT5), _model(MT5)
    model.get_output_embeddings = lambda: nn.Linear(32, 261).double()  # not the head that its forward uses
    policy = LocalPolicy(model)
    found = policy.logps(collate(_examples(), 0))
    assert policy._head is None and "unknown head" in caplog.text
    assert torch.allclose(found, LocalPolicy(plain).logps(collate(_examples(), 0)), atol=1e-9)


@pytest.mark.parametrize("config", [T5, BART])
def test_a_batch_that_trains_nothing_still_reaches_every_side(config: dict[str, Any]):
    from llmfw.core.data import shadow

    model = _model(config)
    LocalPolicy(model).logps(shadow(_examples()[0], 0)).sum().backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and not p.grad.any() for p in trained)


def test_hidden_states_are_the_decoders_and_embeddings_the_encoders():
    model = _model(T5, torch.float32)
    policy = LocalPolicy(model, tokenizer=byte_tokenizer())
    batch = collate(_examples(), 0)
    assert policy.hidden_states(batch, 0).shape == policy.hidden_states(batch, -1).shape == (3, 6, 32)
    with pytest.raises(UsageError, match="LAYER"):
        policy.hidden_states(batch, 2)
    states = model.get_encoder()(input_ids=torch.tensor([[104, 105]]))[0][0]
    assert torch.allclose(policy.embed(["hi"])[0], states.mean(0), atol=1e-6)


def test_a_batch_of_the_other_kind_is_refused():
    plain: Batch = replace(collate(_examples(), 0), encoder_ids=None, encoder_mask=None, encoder_row=None)
    with pytest.raises(PluginError, match="BATCH-SIDES"):
        LocalPolicy(_model(T5)).logps(plain)


def test_a_mixtures_router_loss_is_refused():
    switch = {**T5, "model_type": "switch_transformers", "num_experts": 2, "num_sparse_encoder_layers": 1,
              "num_sparse_decoder_layers": 1, "output_router_logits": True}  # fmt: skip
    made = AutoConfig.for_model(**switch)
    model = AutoModelForSeq2SeqLM.from_config(made, attn_implementation="eager").eval()
    with pytest.raises(UsageError, match="ROUTER-LOSS"):
        LocalPolicy(model).logps(collate(_examples(), 0))


# --- which class, which ids ------------------------------------------------------------------------------


def test_the_class_follows_the_config():
    assert auto_class(AutoConfig.for_model("llama")) is AutoModelForCausalLM
    assert auto_class(AutoConfig.for_model("t5")) is AutoModelForSeq2SeqLM
    assert auto_class(AutoConfig.for_model("bart", is_encoder_decoder=False)) is AutoModelForCausalLM
    assert not is_encoder_decoder(None)
    for kind in ("whisper", "prophetnet", "fsmt", "seamless_m4t"):
        with pytest.raises(UsageError, match="ENCODER-DECODER"):
            auto_class(AutoConfig.for_model(kind))


def test_the_sides_say_start_forced_token_and_positions():
    assert sides_of(AutoConfig.for_model("llama")) is None
    assert sides_of(AutoConfig.for_model("bart")) == Sides(start=2, positions=1024)
    assert sides_of(AutoConfig.for_model("t5", decoder_start_token_id=0)) == Sides(start=0)
    with pytest.raises(UsageError, match="DECODER-START"):
        sides_of(AutoConfig.for_model("t5"))
    from transformers import GenerationConfig

    said = GenerationConfig(decoder_start_token_id=4, forced_bos_token_id=9)
    assert sides_of(AutoConfig.for_model("t5"), said) == Sides(start=4, forced=9)


@pytest.mark.parametrize(
    ("kind", "start"), [("t5", 256), ("pegasus", 256), ("marian", 256), ("bart", 258), ("blenderbot", 257)]
)
def test_a_model_from_scratch_takes_its_ids_from_the_tokenizer(kind: str, start: int):
    """Bytes: <pad> 256, <bos> 257, <eos> 258, <|im_end|> 260. BART begins with its end of text, Blenderbot
    with its beginning, the others with padding.
    """
    source = resolve_model(ModelConfig(name=kind, config={"model_type": kind}))
    config = with_ids(source, byte_tokenizer()).model.config
    assert config["decoder_start_token_id"] == start
    assert (config["pad_token_id"], config["bos_token_id"]) == (256, 257)
    assert config["eos_token_id"] == [258, 260]
    given = resolve_model(ModelConfig(name=kind, config={"model_type": kind, "decoder_start_token_id": 7}))
    assert with_ids(given, byte_tokenizer()).model.config["decoder_start_token_id"] == 7


def test_decoder_only_models_and_saved_ones_keep_their_ids():
    source = resolve_model("tiny-llama")
    assert with_ids(source, byte_tokenizer()) is source


# --- the reference's cache -------------------------------------------------------------------------------


def test_a_cached_reference_tells_prompts_apart():
    """The same answer to two prompts has two entries; without an encoder's side the key is as it was."""
    one, other = _examples([((5, 1), (0, 7, 1)), ((6, 1), (0, 7, 1))])
    assert example_key(one) != example_key(other)
    assert example_key(one) == example_key(_examples([((5, 1), (0, 7, 1))])[0])
