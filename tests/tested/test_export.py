"""Exports that were really made, loaded again by plain transformers and PEFT, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import llmfw
from llmfw.core.tracking import read_journal
from tests.tested.exports import LORA, MEASURE, T5, TINY, Fit, noted
from tests.tested.recorder import note

# formats


def test_a_full_fine_tune_becomes_a_folder_of_transformers(fit: Fit, out: Path):
    noted("full fine-tune, tied embeddings, byte tokenizer", llmfw.export(fit(*TINY), out))
    names = {path.name for path in out.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= names
    assert {"generation_config.json", "README.md", "llmfw-export.json"} <= names


def test_a_lora_becomes_a_folder_of_peft_with_its_base(fit: Fit, out: Path):
    noted("LoRA, as an adapter", llmfw.export(fit(*LORA), out))
    assert (out / "adapter_model.safetensors").is_file() and (out / "base" / "model.safetensors").is_file()


def test_a_lora_is_merged_into_its_base(fit: Fit, out: Path):
    noted("LoRA, merged", llmfw.export(fit(*LORA), out, merge=True), "--merge", 1e-5)
    assert (out / "model.safetensors").is_file() and not (out / "adapter_model.safetensors").exists()


def test_an_adapter_over_a_merged_adapter_is_exported_with_the_merged_base(fit: Fit, out: Path):
    second = fit(f"model={fit(*LORA)}", "data=rows.jsonl", "adapter.kind=lora")
    noted("LoRA continued over a merged LoRA, as an adapter", llmfw.export(second, out))
    merged = llmfw.export(second, out.with_name("merged"), merge=True)
    noted("LoRA continued over a merged LoRA, merged", merged, "--merge", 1e-5)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("DoRA", ("adapter.use_dora=true",)),
        ("rsLoRA", ("adapter.use_rslora=true",)),
        ("modules_to_save", ("adapter.target_modules=[q_proj]", "adapter.modules_to_save=[embed_tokens]")),
        ("LoRA on the tied head, which is untied", ("adapter.target_modules=[lm_head,q_proj]",)),
    ],
)
def test_other_adapters_are_exported_and_merged(name: str, settings: tuple[str, ...], fit: Fit, out: Path):
    run = fit(*LORA, *settings)
    noted(f"{name}, as an adapter", llmfw.export(run, out))
    noted(f"{name}, merged", llmfw.export(run, out.with_name("merged"), merge=True), "--merge", 1e-5)


@pytest.mark.parametrize("held", ["nf4", "int8"])
def test_an_adapter_over_a_quantised_base_is_merged_in_16_bit_and_that_is_measured(
    held: str, fit: Fit, out: Path
):
    run = fit(*LORA, f"model.quantization={held}")
    noted(f"LoRA over {held}, as an adapter", llmfw.export(run, out))
    merged = llmfw.export(run, out.with_name("merged"), merge=True)
    assert merged.dtype == "bfloat16" and merged.quantized_difference is not None
    noted(f"LoRA over {held}, merged in bfloat16", merged, "--merge", 0.05)
    note(
        "export", f"LoRA over {held}, merged in bfloat16: to the quantised model",
        command="llmfw export RUN --out DIR --merge",
        measure="max |logit difference| to the model in training",
        value=merged.quantized_difference, bound=0.2,
    )  # fmt: skip
    text = (out.with_name("merged") / "README.md").read_text()
    assert f"trained over a base in {held}" in text and f"{merged.quantized_difference:.3g}" in text


@pytest.mark.parametrize(("kind", "bound"), [("f32", 1e-5), ("f16", 1e-3), ("bf16", 0.02), ("q8_0", 0.05)])
def test_a_gguf_file_gives_the_same_logits_through_the_gguf_reader(
    kind: str, bound: float, fit: Fit, out: Path
):
    result = llmfw.export(fit(*TINY), out, format="gguf", gguf_type=kind)
    noted(f"GGUF, {kind}", result, f"--format gguf --gguf-type {kind}", bound)
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", f"exported-{kind}.gguf", "llmfw-export.json",
    ]  # fmt: skip


def test_a_merged_adapter_becomes_a_gguf_file(fit: Fit, out: Path):
    noted("LoRA, merged, as GGUF", llmfw.export(fit(*LORA), out, format="gguf"), "--format gguf", 1e-3)


# numbers and files


def test_a_bf16_run_is_exported_bit_for_bit(fit: Fit, out: Path):
    run = fit(*TINY, "model.dtype=bfloat16", "trainer.precision=bf16-true")
    result = llmfw.export(run, out)
    noted("trained in bfloat16", result)
    assert result.dtype == "bfloat16" == json.loads((out / "config.json").read_text())["dtype"]


@pytest.mark.parametrize(("dtype", "bound"), [("bfloat16", 0.02), ("float16", 2e-3)])
def test_another_dtype_rounds_each_weight_once(dtype: str, bound: float, fit: Fit, out: Path):
    result = llmfw.export(fit(*TINY), out, dtype=dtype)
    noted(f"float32 written as {dtype}", result, f"--dtype {dtype}", bound)
    assert result.difference > 0


def test_weights_are_written_in_several_files_where_that_is_asked_for(fit: Fit, out: Path):
    result = llmfw.export(fit(*TINY), out, max_shard_size="100KB")
    noted("in files of at most 100 KB", result, "--max-shard-size 100KB")
    assert len([name for name in result.files if name.endswith(".safetensors")]) > 2


# sources


def test_a_run_of_a_plugin_is_exported_with_its_paper_in_the_card(fit: Fit, out: Path):
    run = fit(
        "model=tiny-llama", "data=pairs.jsonl", "adapter.kind=lora", "ld_dpo.answers=0", plugins=("ld_dpo",)
    )
    noted("run of the plugin ld_dpo", llmfw.export(run, out))
    text = (out / "README.md").read_text()
    assert "arxiv:2409.06411" in text and "ld_dpo.alpha: 0.5" in text and "| held-out loss |" in text


def test_a_run_that_was_stopped_gives_its_newest_checkpoint_and_says_so(
    fit: Fit, place: Path, out: Path, capfd: pytest.CaptureFixture[str]
):
    from llmfw.core.tracking.record import update_record

    run = place / "stopped"
    shutil.copytree(fit(*TINY, "checkpoint.every=1"), run)
    shutil.rmtree(run / "final")
    update_record(run, status="KILLED")
    result = llmfw.export(run, out)
    noted("run that was killed: its newest checkpoint", result)
    assert result.step == 2 and "newest checkpoint, step 2" in capfd.readouterr().err
    noted("a step's checkpoint", llmfw.export(run, out.with_name("one"), step=1), "--step 1")
    left, right = (load_file(folder / "model.safetensors") for folder in (out, out.with_name("one")))
    assert any(not left[name].equal(right[name]) for name in left)


def test_a_checkpoint_folder_and_final_are_named_directly(fit: Fit, out: Path):
    run = fit(*TINY, "checkpoint.every=1")
    folder = run / "checkpoints" / "step-00000001"
    assert llmfw.export(folder, out).step == 1
    noted("checkpoint named by its folder", llmfw.export(run / "final", out.with_name("final")))


def test_an_mlflow_run_id_names_its_run(place: Path, out: Path):
    store = f"tracking.uri=sqlite:///{place}/runs/mlflow.db"
    settings = (
        *TINY,
        "trainer.max_steps=1",
        "trainer.progress=false",
        f"run.dir={place / 'runs' / 'tracked'}",
    )
    run = llmfw.fit(*settings, store)
    noted("MLflow run id", llmfw.export(run.mlflow["run_id"], out))
    assert read_journal(run.dir / "journal.jsonl").of("exported")[0].fields["difference"] == 0.0


def test_any_name_of_a_model_is_exported(place: Path, out: Path):
    result = llmfw.export("tiny-llama", out)
    noted("model that was not trained here (preset tiny-llama)", result)
    assert result.asked == "fixed texts" and "Nothing was trained here" in (out / "README.md").read_text()
    again = llmfw.export(out, out.with_name("again"), license="mit")
    noted("folder of transformers", again, "--license mit")
    assert "license: mit" in (out.with_name("again") / "README.md").read_text()


def test_exports_are_models_that_llmfw_takes_and_exports_again(fit: Fit, out: Path):
    """A folder of PEFT with its base inside, and a GGUF file: both are models like any other."""
    run = fit(*LORA)
    llmfw.export(run, out)
    asked = {"max_new_tokens": 6}
    assert llmfw.generate(["say 7"], f"model={out}", **asked).texts == (
        llmfw.generate(["say 7"], f"model={run}", **asked).texts
    )
    noted("folder of PEFT that brings its base", llmfw.export(out, out.with_name("again")))
    llmfw.export(fit(*TINY), out.with_name("file"), format="gguf", gguf_type="f32")
    file = out.with_name("file") / "file-f32.gguf"
    noted("GGUF file, as a folder of transformers", llmfw.export(file, out.with_name("folder")))


def test_an_adapter_over_a_local_folder_names_it_without_its_parents(fit: Fit, place: Path, out: Path):
    llmfw.export("tiny-llama", place / "my-base", license="mit", overwrite=True)
    result = llmfw.export(fit(f"model={place / 'my-base'}", "data=rows.jsonl", "adapter.kind=lora"), out)
    noted("LoRA over a local folder, as an adapter", result)
    assert str(place / "my-base") in result.next[0] and not (out / "base").exists()
    for name in ("README.md", "adapter_config.json", "llmfw-export.json"):
        text = (out / name).read_text()
        assert str(place) not in text and ("my-base" in text or name == "llmfw-export.json")
    assert "license: mit" in (out / "README.md").read_text()


def test_an_adapter_can_name_a_base_of_the_users_choice(fit: Fit, out: Path):
    noted("LoRA, base named by the user", llmfw.export(fit(*LORA), out, base="me/base"), "--base me/base")
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "me/base" and not (out / "base").exists()


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("gpt2", "{model_type: gpt2, vocab_size: 261, n_embd: 32, n_layer: 2, n_head: 4, n_positions: 128}"),
        (
            "mixtral",
            "{model_type: mixtral, vocab_size: 261, hidden_size: 32, intermediate_size: 48, "
            "num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2, num_local_experts: 4, "
            "max_position_embeddings: 256}",
        ),
        (
            "mamba",
            "{model_type: mamba, vocab_size: 261, hidden_size: 32, state_size: 8, num_hidden_layers: 2}",
        ),
    ],
)
def test_other_architectures_are_written_in_the_hubs_layout(kind: str, config: str, fit: Fit, out: Path):
    attention = "model.attention=" + ("eager" if kind == "mamba" else "sdpa")
    run = fit("data=rows.jsonl", f"model.config={config}", attention)
    noted(f"{kind} from scratch", llmfw.export(run, out))
    if kind != "mamba":
        adapted = fit("data=rows.jsonl", f"model.config={config}", attention, "adapter.kind=lora")
        noted(f"{kind} from scratch, LoRA as an adapter", llmfw.export(adapted, out.with_name("adapter")))
        merged = llmfw.export(adapted, out.with_name("merged"), merge=True)
        noted(f"{kind} from scratch, LoRA merged", merged, "--merge", 1e-5)
    if kind == "mamba":  # a folder doesn't say which attention it has
        noted("mamba, a folder of transformers", llmfw.export(out, out.with_name("again")))
    if kind == "mixtral":  # the names that published checkpoints have, expert by expert
        assert any(".experts.3.w2.weight" in name for name in load_file(out / "model.safetensors"))


def test_an_encoder_decoder_is_exported_whole_and_merged(fit: Fit, out: Path):
    noted("encoder-decoder (T5), full fine-tune", llmfw.export(fit(*T5), out))
    assert "pipeline_tag: text2text-generation" in (out / "README.md").read_text()
    adapted = fit(*T5, "adapter.kind=lora")
    noted("encoder-decoder (T5), LoRA as an adapter", llmfw.export(adapted, out.with_name("adapter")))
    merged = llmfw.export(adapted, out.with_name("merged"), merge=True)
    noted("encoder-decoder (T5), LoRA merged", merged, "--merge", 1e-4)


def test_the_template_of_the_run_is_in_the_exported_tokenizer(place: Path, fit: Fit, out: Path):
    template = (
        "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}> {% endif %}"
    )
    (place / "mine.jinja").write_text(template)
    noted("chat template set by the run", llmfw.export(fit(*TINY, "tokenizer.template=mine.jinja"), out))
    assert (out / "chat_template.jinja").read_text() == template


# without llmfw

PLAIN = """
import json, sys
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
found = {}
for name, case in json.load(open(sys.argv[1])).items():
    auto = AutoModelForSeq2SeqLM if case.get("stacks") else AutoModelForCausalLM
    more = {"gguf_file": case["gguf"]} if case.get("gguf") else {}
    model = auto.from_pretrained(case.get("base") or case["folder"], **more)
    if case.get("base"):
        from peft import PeftModel
        model = PeftModel.from_pretrained(model, case["folder"])
    tokenizer = AutoTokenizer.from_pretrained(case["folder"], **more)
    messages = [{"role": "user", "content": "say 7"}]
    asked = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    inputs = {"input_ids": asked["input_ids"]}
    if case.get("stacks"):
        inputs["decoder_input_ids"] = torch.tensor([[model.config.decoder_start_token_id, 105, 116]])
    with torch.no_grad():
        found[name] = model.eval()(**inputs).logits[0].float().contiguous()
    model.generate(**asked, max_new_tokens=4, do_sample=False)
save_file(found, sys.argv[2])
exec(open("pasted.py").read())
assert not [module for module in sys.modules if module.split(".")[0] == "llmfw"]
"""


def ours(run: Path) -> torch.Tensor:
    """The logits of a run's model in llmfw, for the prompt that the script above asks."""
    from llmfw.core.generation import encode_prompt
    from llmfw.core.models import build_model, load_tokenizer, resolve_model

    source = resolve_model(str(run))
    built, tokenizer = build_model(source, train=False), load_tokenizer(source)
    inputs = {"input_ids": torch.tensor([list(encode_prompt(tokenizer, "say 7"))])}
    if getattr(built.config, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = torch.tensor([[built.config.decoder_start_token_id, 105, 116]])
    with torch.no_grad():
        return built.module(**inputs).logits[0].float()


def test_a_process_without_llmfw_gets_the_same_logits_and_runs_the_cards_python(fit: Fit, out: Path):
    """The cards' snippets run as a reader would paste them beside the folders."""
    out.mkdir()
    full, lora, stacks = fit(*TINY), fit(*LORA), fit(*T5)
    llmfw.export(full, out / "full")
    llmfw.export(lora, out / "lora")
    llmfw.export(lora, out / "merged", merge=True)
    llmfw.export(full, out / "file", format="gguf", gguf_type="f32")
    llmfw.export(stacks, out / "stacks")
    cases: dict[str, tuple[str, Path, dict[str, Any], float]] = {
        "full": ("from-scratch byte-level model, trained and exported", full, {}, 0.0),
        "lora": ("LoRA adapter through PEFT", lora, {"base": str(out / "lora" / "base")}, 0.0),
        "merged": ("merged LoRA", lora, {}, 1e-5),
        "file": ("GGUF, f32", full, {"gguf": "file-f32.gguf"}, 1e-5),
        "stacks": ("encoder-decoder (T5)", stacks, {"stacks": True}, 0.0),
    }
    asked = {name: {"folder": str(out / name), **more} for name, (_, _, more, _) in cases.items()}
    (out / "cases.json").write_text(json.dumps(asked))
    pasted = [
        (out / name / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
        for name in asked
    ]
    assert "PeftModel" in pasted[1] and "gguf_file" in pasted[3] and "llmfw" not in "".join(pasted)
    (out / "pasted.py").write_text("".join(pasted))
    told = subprocess.run(
        [sys.executable, "-P", "-c", PLAIN, str(out / "cases.json"), str(out / "logits.safetensors")],
        cwd=out, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr[-2000:]
    theirs = load_file(out / "logits.safetensors")
    for name, (case, run, _, bound) in cases.items():
        note(
            "export", f"in a process without llmfw: {case}", command="llmfw export RUN --out DIR",
            measure=MEASURE, value=float((theirs[name] - ours(run)).abs().max()), bound=bound,
        )  # fmt: skip


# the real model


@pytest.mark.slow
def test_the_real_model_is_exported_and_answers(out: Path):
    result = llmfw.export("smollm2-135m", out)
    noted("SmolLM2-135M-Instruct (preset smollm2-135m), float32", result)
    text = (out / "README.md").read_text()
    assert "license: apache-2.0" in text and "HuggingFaceTB/SmolLM2-135M-Instruct" in text
    file = llmfw.export(out, out.with_name("file"), format="gguf")
    noted("SmolLM2-135M-Instruct as GGUF, f16", file, "--format gguf", 0.5)
