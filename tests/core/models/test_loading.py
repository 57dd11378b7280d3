from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from llmfw.core.errors import CheckpointError, ResourceError, UsageError
from llmfw.core.models import build_model, check_vocabulary, load_model_config, load_tokenizer
from llmfw.core.models.rng import global_state, same_state
from llmfw.core.schema import AdapterConfig, ModelConfig, TokenizerConfig


@pytest.fixture
def folder(tmp_path: Path, tiny) -> Path:
    """A plain folder of transformers with a tokenizer."""
    build_model(tiny(vocab_size=261)).module.save_pretrained(tmp_path / "plain")
    load_tokenizer(ModelConfig(name="tiny-llama")).save_pretrained(tmp_path / "plain")
    return tmp_path / "plain"


def edit(path: Path, **keys) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def test_random_weights_come_from_the_seed_and_touch_no_global_generator(tiny) -> None:
    state = global_state()
    one, same, other = (build_model(tiny(), AdapterConfig(kind="lora"), seed=seed) for seed in (1, 1, 2))
    assert same_state(state, global_state())
    for name, value in one.module.state_dict().items():
        assert torch.equal(value, same.module.state_dict()[name])
    assert one.base_hash == same.base_hash != other.base_hash
    assert not torch.equal(one.module.state_dict()[name], other.module.state_dict()[name])


def test_a_folders_hash_is_that_of_the_model_it_was_saved_from(tiny, tmp_path) -> None:
    for tied in (False, True):
        made = build_model(tiny(tie_word_embeddings=tied))
        made.module.save_pretrained(tmp_path / str(tied))
        assert build_model(ModelConfig(name=str(tmp_path / str(tied)))).base_hash == made.base_hash


def test_a_changed_file_has_another_hash_though_the_old_one_is_remembered(folder) -> None:
    before = build_model(ModelConfig(name=str(folder))).base_hash
    assert build_model(ModelConfig(name=str(folder))).base_hash == before
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][0] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert build_model(ModelConfig(name=str(folder))).base_hash != before


def test_dtype_and_attention_are_those_asked_for(folder) -> None:
    built = build_model(ModelConfig(name=str(folder), dtype="bfloat16", attention="eager"))
    assert {parameter.dtype for parameter in built.module.parameters()} == {torch.bfloat16}
    assert built.config._attn_implementation == "eager"
    config = load_model_config(ModelConfig(name=str(folder), dtype="bfloat16", attention="eager"))
    assert config.dtype == torch.bfloat16 and config._attn_implementation == "eager"


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_config_that_names_code_is_refused_unless_asked_for(folder, name) -> None:
    edit(folder / name, auto_map={"AutoConfig": "evil.Config", "AutoTokenizer": ["evil.T", None]})
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    load = load_model_config if name == "config.json" else load_tokenizer
    with pytest.raises(
        UsageError, match=rf"error\[REMOTE-CODE\] .*{name}: 'auto_map'.*model.trust_remote_code=true"
    ):
        load(ModelConfig(name=str(folder)))


def test_code_is_refused_wherever_the_config_hides_it(folder, tiny) -> None:
    edit(folder / "config.json", text_config={"_attn_implementation_internal": "owner/kernel"})
    with pytest.raises(UsageError, match=r"REMOTE-CODE"):
        load_model_config(ModelConfig(name=str(folder)))
    with pytest.raises(UsageError, match=r"REMOTE-CODE"):
        load_model_config(tiny(auto_map={"AutoModel": "x.y"}))
    with pytest.raises(UsageError, match=r"REMOTE-CODE.*code from the hub"):
        load_model_config(ModelConfig(name=str(folder), attention="kernels-community/flash-attn"))


def test_pickled_weights_are_refused(folder) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(UsageError, match=r"MODEL-PICKLE.*pytorch_model.bin.*pickle"):
        build_model(ModelConfig(name=str(folder)))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 7,
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        b"<html>not found</html>" * 9,
        b"\xff" * 64,
    ],
    ids=["empty", "short", "lfs", "html", "ones"],
)
def test_a_file_that_is_no_safetensors_is_one_line(folder, content) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        build_model(ModelConfig(name=str(folder)))
    assert "model.safetensors" in str(caught.value) and "\n" not in str(caught.value)


def test_a_truncated_file_is_one_line(folder) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"WEIGHTS.*not fully downloaded"):
        build_model(ModelConfig(name=str(folder)))


def test_missing_tensors_are_an_error_not_random_numbers(folder) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        CheckpointError,
        match=r"1 tensors of the model are not in its files, e.g. model.layers.1.mlp.up_proj.weight",
    ):
        build_model(ModelConfig(name=str(folder)))


def test_a_config_of_another_shape_is_one_line(folder) -> None:
    edit(folder / "config.json", hidden_size=32)
    with pytest.raises(CheckpointError, match=r"WEIGHTS") as caught:
        build_model(ModelConfig(name=str(folder)))
    assert "\n" not in str(caught.value)


def test_an_unknown_model_type_gets_near_names(tiny, folder) -> None:
    with pytest.raises(UsageError, match=r"did you mean llama"):
        load_model_config(tiny(model_type="lama"))
    edit(folder / "config.json", model_type="nonsense-9")
    with pytest.raises(UsageError, match=r"MODEL-CONFIG.*config.json"):
        load_model_config(ModelConfig(name=str(folder)))


def test_a_config_that_transformers_refuses_is_one_line(tiny) -> None:
    with pytest.raises(UsageError, match=r"MODEL-CONFIG") as caught:
        load_model_config(tiny(hidden_size="wide"))
    assert "\n" not in str(caught.value)


def test_a_hub_repository_offline_comes_from_the_hubs_cache_at_its_commit(
    folder, tmp_path, monkeypatch, caplog
) -> None:
    """The layout that huggingface_hub keeps: refs/main names a commit, snapshots/COMMIT holds the files."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        ResourceError, match=r"FETCH.*offline, and not in the hub's cache.*hf download owner/name"
    ):
        load_tokenizer(ModelConfig(name="owner/name"))
    commit = "1" * 40
    repository = tmp_path / "hub" / "models--owner--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots").mkdir()
    folder.rename(repository / "snapshots" / commit)
    model = ModelConfig(name="owner/name")
    caplog.set_level("INFO", logger="llmfw")
    assert len(load_tokenizer(model)) == 261
    assert build_model(model).config.vocab_size == 261
    assert commit in caplog.text


def test_the_tokenizer_of_a_model_is_its_own_or_the_one_that_is_named(folder, tmp_path, tiny) -> None:
    assert len(load_tokenizer(ModelConfig(name=str(folder)))) == 261
    build_model(tiny()).module.save_pretrained(tmp_path / "bare")
    with pytest.raises(UsageError, match=r"TOKENIZER.*holds no tokenizer"):
        load_tokenizer(ModelConfig(name=str(tmp_path / "bare")))
    assert (
        len(load_tokenizer(ModelConfig(name=str(tmp_path / "bare")), TokenizerConfig(name=str(folder))))
        == 261
    )
    assert len(load_tokenizer(ModelConfig(name=str(tmp_path / "bare")), TokenizerConfig(name="byte"))) == 261


def test_templates_are_named_or_files(tmp_path) -> None:
    model = ModelConfig(name="tiny-llama")
    (tmp_path / "t.jinja").write_text("{{ messages[0]['content'] }}!")
    tokenizer = load_tokenizer(model, TokenizerConfig(template=str(tmp_path / "t.jinja")))
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "hi!"
    assert "<|im_start|>" in load_tokenizer(model, TokenizerConfig(template="chatml")).chat_template
    with pytest.raises(UsageError, match=r"TEMPLATE.*chatml"):
        load_tokenizer(model, TokenizerConfig(template="chatlm"))


def test_a_tokenizer_whose_ids_the_model_lacks_is_refused(tiny) -> None:
    tokenizer = load_tokenizer(ModelConfig(name="tiny-llama"))
    check_vocabulary(tokenizer, load_model_config(tiny(vocab_size=261)))
    with pytest.raises(UsageError, match=r"VOCABULARY.*reach 260, the model has 260 \(0 to 259\)"):
        build_model(tiny(vocab_size=260), tokenizer=tokenizer)


def test_a_tokenizer_that_cannot_be_read_is_one_line(folder) -> None:
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(UsageError, match=r"TOKENIZER") as caught:
        load_tokenizer(ModelConfig(name=str(folder)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        (
            AdapterConfig(kind="lora", target_modules=["q_proj", "w_proj"]),
            r"no layer of the model is named 'w_proj'; choose of: .*q_proj",
        ),
        (AdapterConfig(kind="lora", r=0), "a rank of 0"),
        (AdapterConfig(kind="lora", dropout=1.0), "a dropout of 1.0"),
        (AdapterConfig(kind="lora", target_modules=[]), "ADAPTER"),
    ],
)
def test_an_adapter_that_fits_nothing_is_refused(tiny, adapter, said) -> None:
    with pytest.raises(UsageError, match=said):
        build_model(tiny(), adapter)


def test_all_linear_means_every_linear_layer_but_the_head(tiny) -> None:
    built = build_model(tiny(), AdapterConfig(kind="lora", r=2))
    adapted = {
        name.split(".lora_")[0].rsplit(".", 1)[-1]
        for name, _ in built.module.named_parameters()
        if "lora_" in name
    }
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert {
        parameter.requires_grad for name, parameter in built.module.named_parameters() if "lora_" not in name
    } == {False}
