from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmfw.core.errors import CheckpointError, UsageError
from llmfw.core.models import build_model, preset_names, resolve_model, save_weights, weights_manifest
from llmfw.core.schema import AdapterConfig, ModelConfig


def save(folder: Path, tiny, kind: str = "lora", **manifest) -> Path:
    built = build_model(tiny(), AdapterConfig(kind=kind, r=2), seed=5)
    save_weights(built, folder)
    (folder / "manifest.json").write_text(json.dumps(weights_manifest(built) | manifest))
    return folder


def test_presets_are_known_and_bring_their_keys() -> None:
    assert {"smollm2-135m", "tiny-llama"} <= set(preset_names())
    tiny = resolve_model("tiny-llama")
    assert tiny.kind == "scratch" and tiny.model.config["vocab_size"] == 261
    real = resolve_model("smollm2-135m")
    assert (
        real.kind == "package"
        and real.model.package["version"] == "0.1.2"
        and len(real.model.package["sha256"]) == 64
    )


def test_keys_that_the_user_changed_in_a_preset_stay_changed() -> None:
    keys = {**resolve_model("tiny-llama").model.config, "num_hidden_layers": 5}
    assert resolve_model(ModelConfig(name="tiny-llama", config=keys)).model.config["num_hidden_layers"] == 5


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("smollm-135m", "did you mean smollm2-135m?"),
        ("Tiny-Lama", "did you mean tiny-llama"),
        ("gpt2", "a hub id of the form owner/name"),
        ("./nowhere", "check the path"),
        ("a/b/c", "check the path"),
    ],
)
def test_an_unknown_name_is_refused_with_a_hint(name: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_model(name)
    assert str(caught.value).startswith(
        f"error[MODEL-NAME] model.name: no model named {name!r}; "
    ) and hint in str(caught.value)


def test_owner_and_name_is_a_hub_id_unless_the_owner_is_a_folder_here(tmp_path, monkeypatch) -> None:
    assert resolve_model("HuggingFaceTB/SmolLM2-135M-Instruct").kind == "hub"
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"MODEL-NAME"):
        resolve_model("runs/2026-mistyped")


def test_folders_are_told_apart(tmp_path, tiny) -> None:
    plain = build_model(tiny())
    plain.module.save_pretrained(tmp_path / "plain")
    assert resolve_model(str(tmp_path / "plain")).kind == "folder"
    saved = resolve_model(str(save(tmp_path / "saved", tiny)))
    assert (
        saved.kind == "adapter"
        and saved.adapter is not None
        and saved.adapter.r == 2
        and saved.base.config == tiny().config
    )
    assert resolve_model(str(save(tmp_path / "full", tiny, kind="none"))).kind == "full"
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"MODEL-FOLDER.*neither config.json nor manifest.json"):
        resolve_model(str(tmp_path / "empty"))
    (tmp_path / "x.bin").write_bytes(b"PK")
    with pytest.raises(UsageError, match=r"MODEL-FILE.*name its folder"):
        resolve_model(str(tmp_path / "x.bin"))


def test_resolving_what_was_resolved_changes_nothing(tmp_path, tiny) -> None:
    first = resolve_model(str(save(tmp_path / "saved", tiny)))
    assert resolve_model(first.model) == first


def test_a_runs_folder_means_its_final_weights_else_its_newest_sound_checkpoint(tmp_path, tiny) -> None:
    from llmfw.core.checkpoint.manifest import Manifest, file_digest

    def checkpoint(step: int) -> Path:
        folder = save(tmp_path / "run" / "checkpoints" / f"step-{step:08d}", tiny)
        about = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").unlink()
        files = {path.name: file_digest(path) for path in folder.iterdir()}
        (folder / "manifest.json").write_text(Manifest(step=step, files=files, about=about).to_json())
        return folder

    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"NO-CHECKPOINT"):
        resolve_model(str(run))
    older, newer = checkpoint(5), checkpoint(10)
    assert resolve_model(str(run)).folder == newer
    (newer / "adapter_model.safetensors").write_bytes(b"torn")
    assert resolve_model(str(run)).folder == older
    assert resolve_model(str(run / "checkpoints")).folder == older
    save(run / "final", tiny)
    assert resolve_model(str(run)).folder == run / "final"


def test_plugins_that_the_weights_need_are_named_with_their_settings(tmp_path, tiny) -> None:
    found = resolve_model(str(save(tmp_path / "s", tiny, requires=["firp"], settings={"firp": {"k": 2}})))
    assert found.plugins == ("firp",) and found.settings == {"firp": {"k": 2}}


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"kind": "adapter"}', '{"kind": "pickle", "model": {}}', "\x00\xff"]
)
def test_a_damaged_manifest_is_one_line(tmp_path, text) -> None:
    (tmp_path / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError) as caught:
        resolve_model(str(tmp_path))
    assert "\n" not in str(caught.value) and "manifest.json" in str(caught.value)


def test_an_adapter_of_plain_peft_is_loaded_over_its_base(tmp_path, tiny, batch) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from llmfw.core.models import LocalPolicy

    build_model(tiny()).module.save_pretrained(tmp_path / "base")
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tmp_path / "base"),
        LoraConfig(r=2, target_modules=["q_proj"], lora_alpha=5),
    )
    torch.nn.init.normal_(model.base_model.model.model.layers[0].self_attn.q_proj.lora_B["default"].weight)
    model.save_pretrained(tmp_path / "adapter")
    built = build_model(ModelConfig(name=str(tmp_path / "adapter")), train=False)
    assert torch.equal(LocalPolicy(built.module).logps(batch), LocalPolicy(model.eval()).logps(batch))


def test_an_mlflow_run_id_leads_to_the_runs_folder(tmp_path, tiny, monkeypatch) -> None:
    from llmfw.core.tracking.record import RunRecord, write_record

    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    write_record(
        RunRecord(dir=run, id="1", name="one", created="2026-01-01T00:00:00Z", mlflow={"run_id": "a" * 32})
    )
    save(run / "final", tiny)
    assert resolve_model("a" * 32).folder == run / "final"
