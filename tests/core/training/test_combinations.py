"""Settings that can't work together are refused with one line, before a model's config is read."""

from __future__ import annotations

import pytest
import torch

from llmfw.core.config import load_config
from llmfw.core.errors import LlmfwError, ResourceError
from llmfw.core.models import quantize
from llmfw.core.training import combinations
from llmfw.core.training.combinations import check_combinations


def _check(*words: str, training: bool = True) -> None:
    root = load_config(overrides=["trainer.accelerator=cpu", "adapter.kind=lora", *words]).root
    check_combinations(root, training=training)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("model.quantization=nf4", "adapter.kind=none"),
            r"QUANTISE\] model.quantization: .*adapter.kind=lora",
        ),
        (
            ("trainer.strategy=deepspeed", "trainer.accelerator=gpu", "trainer.devices=2"),
            r"(DEEPSPEED|PACKAGE)\] trainer.strategy: DeepSpeed",
        ),
        (("adapter.kind=none", "adapter.use_dora=true"), r"ADAPTER\] adapter.use_dora: it has no effect"),
        (("adapter.kind=none", "adapter.use_rslora=true"), r"ADAPTER\] adapter.use_rslora: it has no effect"),
        (
            ("adapter.kind=none", "adapter.modules_to_save=[lm_head]"),
            r"ADAPTER\] adapter.modules_to_save: it has no effect",
        ),
        (("trainer.precision=16-mixed",), r"PRECISION\] trainer.precision: 16-mixed needs a GPU"),
        (
            ("model.attention=flex_attention",),
            r"ATTENTION\] model.attention: flex_attention has no backward pass",
        ),
        (("model.attention=flash_attention_2",), r"ATTENTION\] .* needs the package flash-attn and a GPU"),
        (("model.attention=spda",), r"ATTENTION\] .* has no attention 'spda'; did you mean sdpa"),
    ],
)
def test_what_can_not_be_trained_together_is_one_line(words, said) -> None:
    with pytest.raises(LlmfwError, match=said) as caught:
        _check(*words)
    assert "\n" not in str(caught.value)


def test_what_only_training_needs_is_not_asked_of_a_model_that_answers() -> None:
    for words in (
        ("model.quantization=nf4", "adapter.kind=none"),
        ("model.attention=flex_attention",),
        ("trainer.precision=16-mixed",),
    ):
        _check(*words, training=False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), None),
        (("model.dtype=float16", "adapter.kind=none"), "gradients of float32 weights"),
        (("model.dtype=float16", "adapter.modules_to_save=[lm_head]"), "gradients of float32 weights"),
        (("model.dtype=float16",), None),  # LoRA's own weights are in float32
    ],
)
def test_16_mixed_on_a_gpu_wants_float32_weights(monkeypatch: pytest.MonkeyPatch, words, said) -> None:
    monkeypatch.setattr(combinations, "on_cpu", lambda trainer: False)
    if said is None:
        _check("trainer.precision=16-mixed", *words)
    else:
        with pytest.raises(LlmfwError, match=said):
            _check("trainer.precision=16-mixed", *words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "computes in 16 bits, the model in 32"),
        (("trainer.precision=bf16-mixed", "data.packing=true"), None),
        (("trainer.precision=bf16-mixed",), None),
    ],
)
def test_flash_attention_where_its_package_is(monkeypatch: pytest.MonkeyPatch, words, said) -> None:
    monkeypatch.setattr(combinations, "find_spec", lambda name: object())
    if said is None:
        _check("model.attention=flash_attention_2", *words)
    else:
        with pytest.raises(LlmfwError, match=said):
            _check("model.attention=flash_attention_2", *words)


@pytest.mark.parametrize("word", ["model.quantization=nf4", "optimizer.name=paged_adamw8bit"])
def test_without_bitsandbytes_the_package_is_named(monkeypatch: pytest.MonkeyPatch, word) -> None:
    monkeypatch.setattr(quantize, "find_spec", lambda name: None)
    with pytest.raises(ResourceError, match=rf"BITSANDBYTES\] {word.partition('=')[0]}: .*pip install"):
        _check(word)


def test_auto_means_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    root = load_config().root
    for present in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda present=present: present)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        assert combinations.on_cpu(root.trainer) is not present
