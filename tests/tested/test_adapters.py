"""Adapters, quantised bases, 8-bit optimizers, precisions, attention: each trained for real, or refused."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import llmfw
from llmfw import Plugin, Report, Surgery, hookimpl
from llmfw.core import failpoints
from llmfw.core.checkpoint import SafeCheckpointIO, newest_verified
from llmfw.core.defaults import Defaults
from llmfw.core.errors import LlmfwError
from llmfw.core.manager import PluginManager
from llmfw.core.models import build_model, quantize, resolve_model
from llmfw.core.models.merge import merge_adapter
from llmfw.core.models.quantize import quantise
from llmfw.core.schema import ModelConfig
from tests.tested.recorder import note, note_refusal

SMALL = ("model=tiny-llama", "data=rows.jsonl", "trainer.progress=false", "tracking.mlflow=false",
         "optimizer.lr=0.01", "trainer.accelerator=cpu", "trainer.max_steps=2")  # fmt: skip
IDS = torch.arange(1, 33)[None]
TO_PEFT = "max |logit difference| to plain PEFT"
RESUMED = "max |difference| of weights and optimizer, killed and resumed, to a run that wasn't"
UNTIED = "model.config={model_type: llama, vocab_size: 261, hidden_size: 64, intermediate_size: 128, " \
    "num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2, tie_word_embeddings: false, " \
    "pad_token_id: 256, bos_token_id: 257, eos_token_id: 258}"  # fmt: skip
EXPERTS = "model.config={model_type: mixtral, vocab_size: 261, hidden_size: 32, intermediate_size: 48, " \
    "num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2, num_local_experts: 4, " \
    "pad_token_id: 256, bos_token_id: 257, eos_token_id: 258}"  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder with rows and pairs, and a cache of its own for what isn't the real model's."""
    monkeypatch.chdir(tmp_path)
    rows = [{"id": f"r{i}", "prompt": f"say {i}", "completion": f"it is {i}"} for i in range(20)]
    pairs = [
        {"id": f"p{i}", "prompt": f"say {i}", "chosen": f"it is {i}", "rejected": f"no, it is {i + 1}"}
        for i in range(8)
    ]
    for name, items in (("rows", rows), ("pairs", pairs)):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))


def _line(*words: str) -> str:
    """What a user types."""
    told = ["--config FILE" if word.startswith("model.config=") else word for word in words]
    return " ".join(["llmfw fit data=FILE", *told])


@torch.no_grad()
def _logits(module: Any) -> torch.Tensor:
    return module(input_ids=IDS).logits.float()


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max())


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("LoRA on all linear layers", ()),
        ("DoRA", ("adapter.use_dora=true",)),
        ("rsLoRA", ("adapter.use_rslora=true",)),
        ("LoRA on attention", ("adapter.target_modules=[attention]",)),
        ("LoRA on feed-forward layers", ("adapter.target_modules=[mlp]",)),
        ("LoRA on the tied head too", ("adapter.target_modules=[attention,lm_head]",)),
        ("LoRA, embeddings and tied head in full", ("adapter.modules_to_save=[embed_tokens,lm_head]",)),
        ("DoRA, head in full", (UNTIED, "tokenizer.name=byte", "adapter.use_dora=true",
                                "adapter.modules_to_save=[lm_head]")),
        ("LoRA on a mixture's experts", (EXPERTS, "tokenizer.name=byte",
                                         "adapter.target_modules=[mlp]")),
    ],
)  # fmt: skip
def test_adapters_train_and_load_in_plain_peft(case: str, words: tuple[str, ...]):
    from peft import PeftModel

    run = llmfw.fit(*SMALL, "adapter.kind=lora", *words)
    ours = build_model(ModelConfig(name=str(run.final)), train=False)
    base = build_model(resolve_model(run.final.as_posix()).base, train=False).module
    logits = _logits(ours.module)
    assert _apart(logits, _logits(base)) > 1e-3 and run.last["loss"] < run.first["loss"]
    plain = PeftModel.from_pretrained(base, run.final).eval()
    note("adapters", case, command=_line("adapter.kind=lora", *words), measure=TO_PEFT,
         value=_apart(_logits(plain), logits), bound=0)  # fmt: skip


def _fit_cut(monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[Path, Path]:
    """The folders of a run that went through, and of one that failed in step 4 of 6 and was resumed."""
    settings = (*SMALL, "trainer.max_steps=6", "trainer.accumulate=2", "checkpoint.every=2", *words)
    whole = llmfw.fit(*settings, "run.dir=whole")
    monkeypatch.setattr(failpoints, "_reached", Counter())
    monkeypatch.setenv("LLMFW_FAILPOINT", "train.mid_accum:4:raise")
    with pytest.raises(Exception, match=r"train\.mid_accum"):
        llmfw.fit(*settings, "run.dir=cut")
    monkeypatch.delenv("LLMFW_FAILPOINT")
    return whole.dir, llmfw.fit(*settings, "run.dir=cut", resume="must").dir


def _tensors(run: Path) -> dict[str, torch.Tensor]:
    """Weights at the end, and the optimizer's state in the last checkpoint."""
    (file,) = (run / "final").glob("*model.safetensors")
    found = {f"weights.{name}": value for name, value in load_file(file).items()}
    last = newest_verified(run / "checkpoints")
    assert last is not None
    state = SafeCheckpointIO().load_checkpoint(last)["optimizer_states"][0]["state"]

    def walk(place: str, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            found[place] = value
        elif isinstance(value, dict):
            for key, part in value.items():
                walk(f"{place}.{key}", part)

    walk("optimizer", state)
    return found


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("resume: DoRA with dropout, head in full", (
            "adapter.kind=lora", "adapter.use_dora=true", "adapter.dropout=0.2",
            "adapter.modules_to_save=[lm_head]",
        )),
        ("resume: QLoRA nf4", ("adapter.kind=lora", "model.quantization=nf4")),
        ("resume: int8 and an 8-bit optimizer", (
            "adapter.kind=lora", "adapter.r=64", "model.quantization=int8", "optimizer.name=adamw8bit",
        )),
        ("resume: full fine-tuning with an 8-bit optimizer", ("optimizer.name=adamw8bit",)),
    ],
)  # fmt: skip
def test_a_resumed_run_is_the_uninterrupted_one(
    monkeypatch: pytest.MonkeyPatch, case: str, words: tuple[str, ...]
):
    whole, cut = (_tensors(folder) for folder in _fit_cut(monkeypatch, *words))
    assert whole.keys() == cut.keys() and any(name.startswith("optimizer") for name in whole)
    difference = max(_apart(whole[name].double(), cut[name].double()) for name in whole)
    note("adapters", case, command=f"{_line(*words)} --resume", measure=RESUMED, value=difference, bound=0)


@pytest.mark.parametrize("kind", ["nf4", "int8"])
@pytest.mark.parametrize("dora", [False, True])
def test_quantised_bases_train(kind: str, dora: bool):
    words = ["adapter.kind=lora", f"model.quantization={kind}", *(["adapter.use_dora=true"] if dora else [])]
    run = llmfw.fit(*SMALL, *words)
    assert run.last["loss"] < run.first["loss"]
    note("adapters", f"{'DoRA' if dora else 'QLoRA'} {kind}", command=_line(*words), measure="final loss",
         value=run.last["loss"], bound=run.first["loss"])  # fmt: skip


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_the_reference_of_a_quantised_policy_is_that_policy_at_the_start(kind: str):
    words = ("adapter.kind=lora", f"model.quantization={kind}")
    run = llmfw.fit(
        *SMALL, "data=pairs.jsonl", *words, "trainer.reference=adapter_off", "dpo.answers=0", plugins=["dpo"]
    )
    line = f"llmfw fit --plugin dpo data=FILE {' '.join(words)}"
    note("adapters", f"DPO over {kind}", command=line, measure="|first loss - ln 2|",
         value=abs(run.first["loss"] - math.log(2)), bound=1e-6)  # fmt: skip


def test_the_reference_beside_a_head_in_full_is_the_model_before_training():
    words = ("adapter.kind=lora", "adapter.modules_to_save=[lm_head]")
    off, copy = (
        llmfw.fit(
            *SMALL, "data=pairs.jsonl", *words, f"trainer.reference={how}", "dpo.answers=0", plugins=["dpo"]
        )
        for how in ("adapter_off", "copy")
    )
    note("adapters", "DPO, head in full", command=f"llmfw fit --plugin dpo data=FILE {' '.join(words)}",
         measure="|final loss - that with a frozen copy as reference|",
         value=abs(off.last["loss"] - copy.last["loss"]), bound=0)  # fmt: skip


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_quantised_run_answers_over_its_own_base_and_is_merged_into_the_16_bit_one(kind: str):
    run = llmfw.fit(*SMALL, "adapter.kind=lora", f"model.quantization={kind}", "model.dtype=bfloat16",
                    "trainer.precision=bf16-true")  # fmt: skip
    same = llmfw.generate(["say 3"], f"model={run.final}", "model.dtype=bfloat16", max_new_tokens=4)
    assert any(f"the base is held in {kind}, as when" in said for said in same.notes)
    wide = llmfw.generate(["say 3"], f"model={run.final}", "model.quantization=none", max_new_tokens=4)
    assert any("here the base is unquantised" in said for said in wide.notes)
    merged = merge_adapter(resolve_model(str(run.final)))
    assert {value.dtype for value in merged.module.parameters()} == {torch.bfloat16}
    held = build_model(ModelConfig(name=str(run.final), dtype="bfloat16", quantization=kind), train=False)
    note("adapters", f"{kind} adapter merged into the bfloat16 base",
         command="llmfw export RUN --merge --out DIR",
         measure="max |logit difference| to the model in training",
         value=_apart(_logits(merged.module), _logits(held.module)), bound=1.0)  # fmt: skip


@pytest.mark.slow
def test_the_real_model_in_4_bits():
    built = build_model(ModelConfig(name="smollm2-135m"), train=False)
    done = quantise(built.module, "nf4")
    assert done.layers == 210
    line = "llmfw fit data=FILE model=smollm2-135m adapter.kind=lora model.quantization=nf4"
    note("adapters", "SmolLM2-135M in nf4", command=line, measure="bytes of weights, share of float32",
         value=done.after / done.before, bound=0.32)  # fmt: skip


@pytest.mark.parametrize("name", ["adamw8bit", "paged_adamw8bit"])
def test_8_bit_optimizers_train_as_adamw_does(name: str):
    plain = llmfw.fit(*SMALL, "trainer.max_steps=6")
    eight = llmfw.fit(*SMALL, "trainer.max_steps=6", f"optimizer.name={name}")
    note("adapters", name, command=_line(f"optimizer.name={name}"), measure="|final loss - AdamW's|",
         value=abs(eight.last["loss"] - plain.last["loss"]), bound=0.05)  # fmt: skip


@pytest.mark.parametrize("words", [(), ("adapter.kind=lora", "model.quantization=nf4")])
def test_gradient_checkpointing_changes_neither_loss_nor_gradients(words: tuple[str, ...]):
    plain = llmfw.fit(*SMALL, *words)
    saved = llmfw.fit(*SMALL, *words, "trainer.recompute=layers")
    names = ("loss", "grad_norm")
    difference = max(
        abs(getattr(plain, moment)[name] - getattr(saved, moment)[name])
        for name in names
        for moment in ("first", "last")
    )
    note("adapters", f"gradient checkpointing{', QLoRA nf4' if words else ''}",
         command=_line("trainer.recompute=layers", *words),
         measure="max |difference| of loss and gradient norm to a run without", value=difference,
         bound=1e-6)  # fmt: skip


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed"])
def test_precisions_train(precision: str):
    plain, other = llmfw.fit(*SMALL), llmfw.fit(*SMALL, f"trainer.precision={precision}")
    assert math.isfinite(other.last["loss"]) and other.last["loss"] != plain.last["loss"]
    note("adapters", f"precision {precision}", command=_line(f"trainer.precision={precision}"),
         measure="|final loss - that of 32-true|", value=abs(other.last["loss"] - plain.last["loss"]),
         bound=0.05)  # fmt: skip


def test_eager_attention_trains_as_sdpa_does():
    plain, other = llmfw.fit(*SMALL), llmfw.fit(*SMALL, "model.attention=eager")
    note("adapters", "attention eager", command=_line("model.attention=eager"),
         measure="|final loss - that of sdpa|", value=abs(other.last["loss"] - plain.last["loss"]),
         bound=1e-5)  # fmt: skip


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("full fine-tuning of a quantised base", ("model.quantization=nf4",)),
        ("nf4 with FSDP2", ("adapter.kind=lora", "model.quantization=nf4", "trainer.strategy=fsdp2",
                            "trainer.devices=2")),
        ("nf4 with DeepSpeed", ("adapter.kind=lora", "model.quantization=nf4", "trainer.strategy=deepspeed",
                                "trainer.devices=2")),
        ("adamw8bit with FSDP2", ("optimizer.name=adamw8bit", "trainer.strategy=fsdp2", "trainer.devices=2")),
        ("16-mixed on the CPU", ("trainer.precision=16-mixed",)),
        ("flex_attention on the CPU", ("model.attention=flex_attention",)),
        ("flash_attention_2 without its package", ("model.attention=flash_attention_2",)),
        ("DoRA on experts", (EXPERTS, "tokenizer.name=byte", "adapter.kind=lora",
                             "adapter.use_dora=true")),
        ("a preset that matches nothing", (
            "model.config={model_type: mamba, vocab_size: 261, hidden_size: 32, num_hidden_layers: 1}",
            "model.attention=eager", "tokenizer.name=byte", "adapter.kind=lora",
            "adapter.target_modules=[attention]",
        )),
        ("the head adapted and in full", ("adapter.kind=lora", "adapter.target_modules=[attention,lm_head]",
                                          "adapter.modules_to_save=[embed_tokens]")),
        ("DoRA without an adapter", ("adapter.use_dora=true",)),
    ],
)  # fmt: skip
def test_what_is_refused(case: str, words: tuple[str, ...]):
    with pytest.raises(LlmfwError) as caught:
        llmfw.fit(*SMALL, *words)
    note_refusal("adapters", case, command=_line(*words), line=str(caught.value))
    assert not Path("runs").exists()


class Surgeon(Plugin):
    """Looks into the weights of a layer, which a quantised one doesn't have."""

    @hookimpl
    def llmfw_surgeries(self, run: Any, model_config: Any) -> list[Surgery]:
        def apply(model: Any, generator: Any) -> Report:
            raise AssertionError("the plan comes first")

        return [Surgery(name="look", phase="after_load", apply=apply, refuses=("quantised",))]


def test_a_surgery_that_can_not_bear_a_quantised_base_is_refused(monkeypatch: pytest.MonkeyPatch):
    manager = PluginManager([("surgeon", Surgeon(None))], Defaults(None), {"surgeon": "surgeon 1.0"})
    monkeypatch.setattr("llmfw.core.assemble.build_manager", lambda resolved, verb: manager)
    words = ("adapter.kind=lora", "model.quantization=nf4")
    with pytest.raises(LlmfwError) as caught:
        llmfw.fit(*SMALL, *words)
    note_refusal("adapters", "a surgery that refuses quantised bases", command=_line("--plugin NAME", *words),
                 line=str(caught.value))  # fmt: skip


def test_without_bitsandbytes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(quantize, "find_spec", lambda name: None)
    with pytest.raises(LlmfwError) as caught:
        llmfw.fit(*SMALL, "optimizer.name=adamw8bit")
    note_refusal("adapters", "without bitsandbytes", command=_line("optimizer.name=adamw8bit"),
                 line=str(caught.value))  # fmt: skip
