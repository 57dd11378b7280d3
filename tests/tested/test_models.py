"""Models and tokenizers as users bring them: architectures from their config, tokenizers of all kinds, GGUF
files read and written; and what is refused of them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GgufConfig, PreTrainedTokenizerFast

import llmfw
from llmfw.core.errors import LlmfwError
from llmfw.core.models import build_model, load_tokenizer, resolve_model
from llmfw.core.models.gguf import write_gguf
from llmfw.core.schema import ModelConfig
from tests.tested.recorder import note, note_refusal

QUIET = ("trainer.progress=false", "tracking.mlflow=false")
LEARN = (*QUIET, "data=rows.jsonl", "trainer.max_steps=8", "trainer.micro_batch=8", "optimizer.lr=0.01")
BPE = ("tokenizer.train=bpe", "tokenizer.vocab_size=300")
RELOADED = "max |logit difference| to plain transformers on final/"
SAME = "max |logit difference| to the HF folder, in plain transformers"
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": SMALL,
    "mistral": {**SMALL, "sliding_window": 16},
    "qwen2": SMALL,
    "gemma2": {**SMALL, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 16},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "gpt_neox": {name: value for name, value in SMALL.items() if name != "num_key_value_heads"},
    "falcon": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
    "mamba2": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "state_size": 8,
        "num_heads": 8,
        "head_dim": 8,
        "n_groups": 1,
    },
    "mixtral": {**SMALL, "num_local_experts": 4, "num_experts_per_tok": 2, "output_router_logits": True},
}
EAGER = ("gemma2", "mamba", "mamba2")
SAID = {"gemma2": "soft caps", "gpt2": "Conv1D, learned positions", "mixtral": "router loss"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with supervised rows, and a cache of its own."""
    monkeypatch.setenv("LLMFW_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_rows()
    return tmp_path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An HF folder of a trained llama with its own BPE tokenizer; widths are whole blocks of q8_0."""
    place = tmp_path_factory.mktemp("llama")
    wide = words({"model_type": "llama", **SMALL, "hidden_size": 64, "intermediate_size": 96})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("LLMFW_CACHE", str(place / "cache"))
        write_rows()
        return llmfw.fit(*LEARN, wide, *BPE).final.absolute()


def write_rows() -> None:
    rows = [{"prompt": f"say {i}", "completion": f"it is {i}, the number after {i - 1}"} for i in range(40)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def words(config: dict[str, Any]) -> str:
    """``model.config=...`` as it's typed."""
    said = (
        (name, str(value).lower() if isinstance(value, bool) else value) for name, value in config.items()
    )
    return "model.config={" + ", ".join(f"{name}: {value}" for name, value in said) + "}"


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(6, 54).reshape(2, 24)).logits


def difference(one: Any, other: Any) -> float:
    return float((logits(one) - logits(other)).abs().max())


def plain(folder: Path, **how: Any) -> Any:
    """As plain transformers loads it, in float32."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **how).eval()


def gguf(file: str = "m.gguf") -> Any:
    return plain(Path(), gguf_file=file, quantization_config=GgufConfig(dequantize=True))


def refused(case: str, command: str, call: Callable[[], Any], **shorter: Path) -> None:
    with pytest.raises(LlmfwError) as caught:
        call()
    line = str(caught.value)
    for word, path in shorter.items():
        line = line.replace(str(path), word)
    note_refusal("models", case, command=command, line=line)


# Architectures


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_an_architecture_is_trained_from_its_config_alone_and_loaded_again(kind: str) -> None:
    attention = "eager" if kind in EAGER else "sdpa"
    config = words({"model_type": kind, **ARCHITECTURES[kind]})
    more = [f"model.attention={attention}"] if kind in EAGER else []
    result = llmfw.fit(*LEARN, *BPE, config, *more)
    assert result.last["loss"] < 0.9 * result.first["loss"]
    if kind == "mixtral":
        assert result.last["auxiliary_loss"] > 0
    if kind == "gemma2":  # a run's attention goes with its weights
        assert len(llmfw.generate(["say 3"], f"model={result.dir}", max_new_tokens=4).texts) == 1
    source = resolve_model(ModelConfig(name=str(result.dir), attention=attention))
    built, tokenizer = build_model(source, train=False), load_tokenizer(source)
    assert built.config.vocab_size == len(tokenizer) <= 300
    note(
        "models",
        f"{kind}{f' ({SAID[kind]})' if kind in SAID else ''}, from its config",
        command=f"llmfw fit '{config}' {' '.join([*more, *BPE])} data=FILE",
        measure=RELOADED,
        value=difference(built.module, plain(result.final)),
        bound=0.0,
    )


# Tokenizers

LLAMA = words({"model_type": "llama", **SMALL})
ODD = ["", " naïve  日本語 🙂\r\n\x00", "▁##é é", "x" * 200]


@pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece"])
def test_a_tokenizer_is_trained_on_the_rows_and_goes_with_the_weights(kind: str) -> None:
    train = (f"tokenizer.train={kind}", "tokenizer.vocab_size=400")
    result = llmfw.fit(*LEARN, LLAMA, *train)
    again = load_tokenizer(resolve_model(str(result.dir)))
    assert result.last["loss"] < result.first["loss"]
    if kind == "bpe":  # measured with the run's data and settings, and the tokenizer beside the weights
        measured = llmfw.evaluate(f"model={result.dir}", *QUIET)
        assert measured.validation["loss"] == pytest.approx(result.validation["loss"], abs=1e-5)
    texts = [*ODD, *Path("rows.jsonl").read_text().split("\n")]
    note(
        "models",
        f"{kind} tokenizer trained on the data",
        command=f"llmfw fit '{LLAMA}' {' '.join(train)} data=FILE",
        measure="texts that don't come back from the ids of final/'s tokenizer",
        value=sum(again.decode(again(text)["input_ids"]) != text for text in texts),
        bound=0.0,
    )


def test_a_given_tokenizer_sets_the_vocabulary(folder: Path) -> None:
    result = llmfw.fit(*LEARN, LLAMA, f"tokenizer.name={folder}")
    built = build_model(resolve_model(str(result.dir)), train=False)
    given = load_tokenizer(resolve_model(str(folder)))
    assert result.last["loss"] < 0.9 * result.first["loss"]
    assert built.config.vocab_size == len(given)
    kept = load_tokenizer(resolve_model(str(result.dir)))
    note(
        "models",
        "given tokenizer",
        command=f"llmfw fit '{LLAMA}' tokenizer.name=DIR data=FILE",
        measure="texts whose ids differ between the given tokenizer and final/'s",
        value=sum(given(text)["input_ids"] != kept(text)["input_ids"] for text in [*ODD, "say 12"]),
        bound=0.0,
    )


def test_a_byte_level_model_is_trained_exported_and_loaded_again() -> None:
    result = llmfw.fit(*LEARN, "model=tiny-llama")
    assert result.last["loss"] < 0.9 * result.first["loss"]
    out = Path("exported")
    llmfw.export(result.dir, out)
    built = build_model(resolve_model(str(result.dir)), train=False)
    again = build_model(resolve_model(str(out)), train=False)
    assert difference(built.module, again.module) == 0
    assert load_tokenizer(resolve_model(str(out)))("é")["input_ids"] == [195, 169]
    note(
        "models",
        "byte-level model from scratch, exported and loaded again",
        command="llmfw fit model=tiny-llama data=FILE",
        measure="max |logit difference| to plain transformers on the export",
        value=difference(built.module, plain(out)),
        bound=0.0,
    )


# GGUF


@pytest.mark.parametrize(("dtype", "bound"), [("f32", 1e-5), ("f16", 5e-3), ("bf16", 5e-2), ("q8_0", 2e-1)])
def test_a_model_is_written_as_gguf_and_read_by_plain_transformers(
    folder: Path, dtype: str, bound: float
) -> None:
    write_gguf(folder, Path("m.gguf"), dtype=dtype)
    ours = load_tokenizer(resolve_model(str(folder)))
    theirs = PreTrainedTokenizerFast.from_pretrained(".", gguf_file="m.gguf")
    for text in ["say 12", *ODD, "<|im_start|>user\nsay 3<|im_end|>"]:
        assert ours(text)["input_ids"] == theirs(text)["input_ids"]
    note(
        "models",
        f"GGUF in {dtype}, written",
        command=f"llmfw export RUN --out DIR --format gguf --gguf-type {dtype}",
        measure=SAME,
        value=difference(gguf(), plain(folder)),
        bound=bound,
    )


@pytest.mark.parametrize("kind", ["mistral", "qwen2"])
def test_other_architectures_are_written_as_gguf(kind: str) -> None:
    config = words({"model_type": kind, **SMALL, "hidden_size": 64})
    final = llmfw.fit(*LEARN, "trainer.max_steps=2", config, *BPE).final
    write_gguf(final, Path("m.gguf"), dtype="f32")
    note(
        "models",
        f"GGUF of a {kind}, written",
        command="llmfw export RUN --out DIR --format gguf --gguf-type f32",
        measure=SAME,
        value=difference(gguf(), plain(final)),
        bound=1e-5,
    )


@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_training_starts_from_a_gguf_file_and_the_run_is_loaded_again(
    folder: Path, adapter: str, capfd: pytest.CaptureFixture[str]
) -> None:
    write_gguf(folder, Path("m.gguf"), dtype="q8_0")
    result = llmfw.fit(*LEARN, "model=m.gguf", f"adapter.kind={adapter}")
    said = capfd.readouterr().err
    assert "m.gguf holds tensors of 16 Q8_0, 5 F32, dequantised to float32" in said
    assert "full fine-tuning starts from the dequantised values" in said
    assert result.last["loss"] < result.first["loss"]
    built = build_model(resolve_model(str(result.dir)), train=False)
    other, over = plain(result.final) if adapter == "none" else gguf(), "final/"
    if adapter == "lora":
        from peft import PeftModel

        other, over = PeftModel.from_pretrained(other, result.final).eval(), "PEFT over the file"
    note(
        "models",
        f"{'LoRA' if adapter == 'lora' else 'full fine-tuning'} from a quantised GGUF file (q8_0)",
        command=f"llmfw fit model=FILE.gguf adapter.kind={adapter} data=FILE",
        measure=f"max |logit difference| to {over}, in plain transformers",
        value=difference(built.module, other),
        bound=1e-5,
    )


def test_a_gguf_file_answers(folder: Path) -> None:
    write_gguf(folder, Path("m.gguf"), dtype="f32")
    models = (f"model={name}" for name in ("m.gguf", folder))
    answers = [llmfw.generate(["say 3", "say 12"], model, max_new_tokens=12).texts for model in models]
    note(
        "models",
        "GGUF file, generating",
        command="llmfw generate PROMPT model=FILE.gguf",
        measure="greedy answers that differ from the HF folder's",
        value=sum(left != right for left, right in zip(*answers)),
        bound=0.0,
    )


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_the_real_model_is_written_as_gguf(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmfw.core.models.fetch import local_folder

    monkeypatch.delenv("LLMFW_CACHE")  # converted once a machine
    original = local_folder(resolve_model("smollm2-135m"))
    write_gguf(original, Path("m.gguf"), dtype=dtype)
    ours = load_tokenizer(resolve_model("smollm2-135m"))
    theirs = PreTrainedTokenizerFast.from_pretrained(".", gguf_file="m.gguf")
    text = "The capital of France is Paris, isn't it? 3.14 + 1234 = x_1 naïve 日本語 🙂\n\n\tdef f(a):"
    assert ours(text)["input_ids"] == theirs(text)["input_ids"]
    model = plain(original)
    if dtype == "f16":
        for parameter in model.parameters():
            parameter.data = parameter.data.half().float() if parameter.dim() > 1 else parameter.data
    note(
        "models",
        f"real SmolLM2-135M, GGUF in {dtype}, written",
        command=f"llmfw export smollm2-135m --out DIR --format gguf --gguf-type {dtype}",
        measure=SAME + (", matrices rounded to f16" if dtype == "f16" else ""),
        value=difference(gguf(), model),
        bound=1e-5,
    )


# Refusals

UNIGRAM = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0]], "byte_fallback": False}


def test_what_is_no_model_is_refused(here: Path, folder: Path) -> None:
    write_gguf(folder, Path("m.gguf"))
    raw = Path("m.gguf").read_bytes()
    files = {
        "a file that is no GGUF": ("weights.bin", b"PK"),
        "GGUF by its name only": ("page.gguf", b"<html>"),
        "GGUF cut short": ("half.gguf", raw[: len(raw) // 2]),
        "GGUF of another byte order": ("big.gguf", raw[:4] + raw[7:3:-1] + raw[8:]),
        "one part of a split GGUF": ("m-00001-of-00003.gguf", raw),
    }
    for case, (name, content) in files.items():
        Path(name).write_bytes(content)
        call = partial(llmfw.plan, *QUIET, "data=rows.jsonl", "trainer.max_steps=2", f"model={name}")
        refused(case, f"llmfw fit model={name} data=FILE", call, DIR=here)


def test_what_gguf_can_not_express_is_refused(here: Path, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    cases = {
        "GGUF of a mamba": ("config.json", {"model_type": "mamba"}),
        "GGUF of a llama with biases": ("config.json", {**config, "attention_bias": True}),
        "GGUF with a unigram tokenizer": ("tokenizer.json", {**tokenizer, "model": UNIGRAM}),
    }
    for case, (name, content) in cases.items():
        copy = shutil.copytree(folder, here / case)
        (copy / name).write_text(json.dumps(content))
        call = partial(write_gguf, copy, Path("m.gguf"))
        refused(case, "llmfw export RUN --out DIR --format gguf", call, RUN=copy)


@pytest.mark.parametrize(
    ("case", "settings"),
    [
        ("tokenizer.train with trained weights", ("model=RUN", *BPE)),
        ("tokenizer.train and tokenizer.name", (LLAMA, *BPE, "tokenizer.name=byte")),
        ("tokenizer.train and streaming", (LLAMA, *BPE, "data.streaming=true")),
        ("tokenizer.train on rows chosen by a tokenizer", (LLAMA, *BPE, "data=champ-preferences")),
        ("tokenizer.vocab_size without tokenizer.train", (LLAMA, "tokenizer.vocab_size=300")),
        ("too few tokens for all bytes", (LLAMA, "tokenizer.train=bpe", "tokenizer.vocab_size=200")),
        (
            "a config with too small a vocabulary",
            (words({"model_type": "llama", **SMALL, "vocab_size": 280}), *BPE),
        ),
        (
            "an architecture without this attention",
            (words({"model_type": "gemma2", **ARCHITECTURES["gemma2"]}), *BPE),
        ),
        ("an unknown architecture", ("model.config={model_type: lama}",)),
    ],
)
def test_settings_that_can_not_be_are_refused_before_anything_is_built(
    folder: Path, case: str, settings: tuple[str, ...]
) -> None:
    typed = [f"'{word}'" if " " in word else word for word in settings]
    given = [word.replace("model=RUN", f"model={folder}") for word in settings]
    data = () if any(word.startswith("data=") for word in given) else ("data=FILE",)
    call = partial(llmfw.plan, *QUIET, "data=rows.jsonl", "trainer.max_steps=2", *given)
    refused(case, " ".join(["llmfw fit", *typed, *data]), call, RUN=folder)
