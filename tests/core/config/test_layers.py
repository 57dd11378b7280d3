"""Which value holds, and where it came from."""

from __future__ import annotations

from pathlib import Path

from llmfw.core.config import load_config
from tests.core.config.helpers import SOURCE, file, refused
from tests.toys import installed, write_toy


def test_later_layers_shadow_earlier_ones_and_remember_them(site: Path, tmp_path: Path):
    low = file(tmp_path, "optimizer:\n  lr: 3e-4\n", "low.yaml")
    high = file(tmp_path, "# top\noptimizer:\n  clip: 0\n  lr: 4e-4\n", "high.yaml")
    resolved = load_config(plugins=["first"], files=[low, high], overrides=["optimizer.lr=5e-4"])
    origin = resolved.origin["optimizer.lr"]
    assert resolved.root.optimizer.lr == 5e-4
    assert origin.layer == "command line"
    assert [(shadow.layer, shadow.value, shadow.line) for shadow in origin.shadows] == [
        ("file", 4e-4, 4), ("file", 3e-4, 2), ("plugin first", 1e-4, 2), ("defaults", 2e-5, None),
    ]  # fmt: skip
    assert origin.shadows[0].file == str(high)


def test_settings_of_plugins_are_instances_of_their_config(site: Path):
    resolved = load_config(
        plugins=["first"], overrides=["first.sizes=[3]", "first.notes={a: {b: 1}}", "first.mode=one"]
    )
    config = resolved.plugin_settings["first"]
    assert type(config).__name__ == "Config"
    assert (config.alpha, config.sizes, config.notes, config.mode) == (0.25, [3], {"a": {"b": 1}}, "one")
    assert resolved.flat()["first.notes.a.b"] == 1
    assert resolved.plugin_names == resolved.root.plugins == ["first"]


def test_a_name_stands_for_its_section(tmp_path: Path):
    path = file(tmp_path, "model: tiny-llama\ndata:\n  name: other.jsonl\n")
    resolved = load_config(files=[path], overrides=["data=my file #1.jsonl", "models.critic=runs/a"])
    assert (resolved.root.model.name, resolved.root.data.name) == ("tiny-llama", "my file #1.jsonl")
    assert resolved.root.models["critic"].name == "runs/a"
    assert resolved.origin["model.name"].line == 1
    assert resolved.origin["models.critic.dtype"].layer == "defaults"


def test_a_preset_is_a_layer_below_files(tmp_path: Path):
    path = file(tmp_path, "model:\n  name: tiny-llama\n  config:\n    hidden_size: 32\n")
    resolved = load_config(files=[path])
    assert resolved.flat()["model.config.model_type"] == "llama"
    assert resolved.origin["model.config.model_type"].layer == "preset tiny-llama"
    origin = resolved.origin["model.config.hidden_size"]
    assert (origin.value, origin.layer, origin.shadows[0].layer) == (32, "file", "preset tiny-llama")


def test_an_auxiliary_model_may_be_a_preset_too():
    resolved = load_config(overrides=["models.judge=tiny-llama", "models.judge.dtype=bfloat16"])
    assert resolved.root.models["judge"].config["model_type"] == "llama"
    assert resolved.root.models["judge"].dtype == "bfloat16"


def test_no_path_outside_the_presets_is_taken_for_one():
    assert load_config(overrides=["model=../models/tiny-llama"]).root.model.config == {}


def test_what_belongs_to_a_data_set_goes_when_another_is_named(site: Path, tmp_path: Path):
    write_toy(
        site, "picky", SOURCE, overlay="data:\n  name: champ-preferences\n  options: {lengths: natural}\n"
    )
    with installed(site):

        def data(*overrides: str) -> object:
            return load_config(plugins=["picky"], overrides=overrides).root.data

        assert data().options["lengths"] == "natural" and data().split_key == "problem"
        assert data("data=champ-preferences").options["lengths"] == "natural"
        other = data("data=my.jsonl")
        assert (other.options, other.package, other.kind, other.split_key) == ({}, {}, None, None)
        assert data("data=my.jsonl", "data.options.x=1").options == {"x": 1}
        saved = file(tmp_path, load_config(plugins=["picky"]).to_yaml())
        again = load_config(files=[saved], overrides=["data=my.jsonl"]).root.data
        assert (again.options, again.split_key, again.validation) == ({}, None, "0.2")


def test_free_mappings_merge_key_by_key_and_an_empty_one_clears(tmp_path: Path):
    path = file(tmp_path, "tracking:\n  tags: {a: x, b: y}\n")
    assert load_config(files=[path], overrides=["tracking.tags.b=z"]).root.tracking.tags == {
        "a": "x",
        "b": "z",
    }
    assert load_config(files=[path], overrides=["tracking.tags={}"]).root.tracking.tags == {}
    dotted = load_config(overrides=["tracking.tags.team.name=x"])
    assert dotted.root.tracking.tags == {"team.name": "x"}


def test_steps_put_epochs_to_null_and_the_other_way_round(site: Path, tmp_path: Path):
    plain = load_config().root.trainer
    assert (plain.max_steps, plain.epochs) == (None, 1.0)
    steps = load_config(plugins=["first"]).root.trainer
    assert (steps.max_steps, steps.epochs) == (10, None)
    epochs = load_config(plugins=["first"], overrides=["trainer.epochs=2"])
    assert (epochs.root.trainer.max_steps, epochs.root.trainer.epochs) == (None, 2.0)
    assert epochs.origin["trainer.max_steps"].layer == "command line"


def test_steps_and_epochs_in_one_layer_are_refused(tmp_path: Path):
    assert "both set" in refused(overrides=["trainer.epochs=2", "trainer.max_steps=3"]).what
    path = file(tmp_path, "trainer:\n  max_steps: 3\n  epochs: 1\n")
    assert refused(files=[path]).line == 3
    nothing = refused(overrides=["trainer.epochs=null"])
    assert nothing.what == "nothing says how long to train"


def test_a_heading_with_nothing_under_it_sets_nothing(tmp_path: Path):
    path = file(tmp_path, "optimizer:\n  # lr: 1\nmodels:\nseed: 3\n")
    assert load_config(files=[path]).root.seed == 3
    assert refused(files=[file(tmp_path, "optimizer: null\n")]).code == "CONFIG-TYPE"
    assert refused(files=[file(tmp_path, "seed:\n")]).what == "the value is empty"
