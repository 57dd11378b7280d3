"""Toy surgeries of each phase, with and without LoRA: what they add trains, is saved, and comes back bit
for bit.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from llmfw.core.errors import CheckpointError, ConflictError, PluginError
from llmfw.core.models import (
    LocalPolicy,
    build_model,
    load_weights,
    parameter_groups,
    resolve_model,
    save_weights,
    weights_manifest,
)
from llmfw.core.models.adapters import bare
from llmfw.core.models.parameters import model_facts, rank_local_names, source_facts, trainable_parameters
from llmfw.core.records import Report, Surgery
from llmfw.core.schema import AdapterConfig, ModelConfig

LORA = AdapterConfig(kind="lora", r=2)
NONE = AdapterConfig()


class Gate(nn.Module):
    """x * (1 + weight): a new parameter inside the model, zero would change nothing."""

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, generator=generator) / 10)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        return x * (1 + self.weight)


class GatedNorm(nn.Module):
    def __init__(self, norm: nn.Module, generator: torch.Generator) -> None:
        super().__init__()
        self.norm, self.gate = norm, Gate(norm.weight.shape[0], generator)

    def forward(self, x):
        return self.gate(self.norm(x))


def gate(target, generator) -> Report:
    decoder = bare(target).model
    if isinstance(decoder.norm, GatedNorm):
        return Report(changed=("model.norm",))
    decoder.norm = GatedNorm(decoder.norm, generator)
    return Report(changed=("model.norm",))


def draft(target, generator) -> Report:
    layer = nn.Linear(4, 4, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(4, 4, generator=generator))
    return Report(companions={"draft": layer})


def surgery(name: str = "gate", phase: str = "after_load", apply=gate, **keys) -> Surgery:
    keys = {"trainable": ("model.norm.gate.*",)} | keys if apply is gate else keys
    with torch.random.fork_rng():
        return Surgery(name=name, phase=phase, apply=apply, **keys)


def quiet_draft() -> Surgery:
    def apply(target, generator):
        with torch.random.fork_rng():
            return draft(target, generator)

    return surgery("draft", apply=apply, trainable=("companions.draft.*",))


def write(built, folder: Path) -> Path:
    save_weights(built, folder)
    (folder / "manifest.json").write_text(json.dumps(weights_manifest(built)))
    return folder


def shake(built) -> None:
    """Move every trainable parameter, as training would."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in trainable_parameters(built).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) / 10)


@pytest.mark.parametrize("adapter", [NONE, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("phase", ["after_load", "after_adapters"])
def test_what_a_surgery_adds_trains_is_saved_and_comes_back_bit_for_bit(
    tiny, batch, tmp_path, adapter, phase
) -> None:
    surgeries = [("toy", surgery(phase=phase)), ("other", quiet_draft())]
    built = build_model(tiny(), adapter, surgeries, seed=7)
    trained = trainable_parameters(built)
    assert {"model.norm.gate.weight", "companions.draft.weight"} <= trained.keys()
    assert built.kind == ("adapter" if adapter is LORA else "full")
    shake(built)
    built.module.get_submodule(
        "base_model.model.model.norm.gate" if adapter is LORA else "model.norm.gate"
    ).calls += 41

    folder = write(built, tmp_path / "saved")
    assert (folder / "surgeries.safetensors").is_file() and (folder / "draft.safetensors").is_file()
    assert (folder / "model.safetensors").is_file() == (adapter is NONE)
    assert (folder / "adapter_model.safetensors").is_file() == (adapter is LORA)

    for again in (
        build_model(ModelConfig(name=str(folder)), None, surgeries, seed=99, train=False),
        reloaded(tiny, adapter, surgeries, folder),
    ):
        for name, value in built.module.state_dict().items():
            assert torch.equal(again.module.state_dict()[name], value), name
        assert torch.equal(again.companions["draft"].weight, built.companions["draft"].weight)
        assert torch.equal(LocalPolicy(again.module).logps(batch), LocalPolicy(built.module).logps(batch))


def reloaded(tiny, adapter, surgeries, folder):
    """As a resumed training does it: built anew from the base, then filled in place."""
    built = build_model(tiny(), adapter, surgeries, seed=7)
    kept = dict(built.module.named_parameters())
    load_weights(built, folder)
    assert all(parameter is kept[name] for name, parameter in built.module.named_parameters())
    return built


def test_untouched_weights_are_those_of_the_base(tiny) -> None:
    base, operated = build_model(tiny(), seed=7), build_model(tiny(), NONE, [("toy", surgery())], seed=7)
    state = operated.module.state_dict()
    assert all(
        torch.equal(value, state[name])
        for name, value in base.module.state_dict().items()
        if name != "model.norm.weight"
    )
    assert torch.equal(base.module.state_dict()["model.norm.weight"], state["model.norm.norm.weight"])
    assert base.base_hash == operated.base_hash


def test_each_surgery_draws_from_its_own_generator_whatever_stands_beside_it(tiny) -> None:
    alone = build_model(tiny(), NONE, [("toy", surgery())], seed=7)
    company = build_model(tiny(), LORA, [("other", quiet_draft()), ("toy", surgery())], seed=7)
    other_seed = build_model(tiny(), NONE, [("toy", surgery())], seed=8)
    weight = alone.module.model.norm.gate.weight
    assert torch.equal(weight, bare(company.module).model.norm.gate.weight)
    assert not torch.equal(weight, other_seed.module.model.norm.gate.weight)


def test_a_surgery_that_draws_globally_is_named(tiny) -> None:
    with pytest.raises(
        PluginError, match=r"SURGERY-RANDOM.*surgery 'draft' of plugin 'toy'.*generator that apply receives"
    ):
        build_model(tiny(), NONE, [("toy", surgery("draft", apply=draft))])


def test_a_surgery_that_changes_nothing_is_an_error_unless_it_is_neutral(tiny) -> None:
    idle = surgery("idle", apply=lambda target, generator: Report())
    with pytest.raises(PluginError, match=r"SURGERY-IDLE.*'idle' of plugin 'toy' changed nothing"):
        build_model(tiny(), NONE, [("toy", idle)])
    built = build_model(
        tiny(),
        NONE,
        [("toy", surgery("idle", apply=lambda t, g: Report(), neutral=True, trainable=("x.*",)))],
    )
    assert built.own == () and built.kind == "full"


@pytest.mark.parametrize("key", ["trainable", "no_weight_decay", "rank_local"])
def test_a_pattern_that_matches_nothing_is_an_error(tiny, key) -> None:
    with pytest.raises(PluginError, match=rf"SURGERY-PATTERN.*'toy'.*{key} pattern 'model.nrm.\*'"):
        build_model(tiny(), LORA, [("toy", surgery(**{key: ("model.nrm.*",)}))])


def test_what_a_surgery_raises_carries_its_name(tiny) -> None:
    def fail(target, generator):
        raise ValueError("no such layer")

    with pytest.raises(
        PluginError, match=r"test_surgery.py:\d+: plugin 'toy'.* ValueError: no such layer"
    ) as caught:
        build_model(tiny(), NONE, [("toy", surgery("fail", apply=fail))])
    assert "surgery 'fail', phase after_load" in str(caught.value)
    assert isinstance(caught.value.__cause__, ValueError)


def test_answers_that_are_no_report_and_companions_that_are_no_module_are_refused(tiny) -> None:
    with pytest.raises(PluginError, match=r"answered NoneType, not a Report"):
        build_model(tiny(), NONE, [("toy", surgery("none", apply=lambda t, g: None))])
    with pytest.raises(PluginError, match=r"is no torch module"):
        build_model(tiny(), NONE, [("toy", surgery("x", apply=lambda t, g: Report(companions={"x": 3})))])
    with pytest.raises(PluginError, match=r"'model' .*already taken"):
        build_model(
            tiny(),
            NONE,
            [("toy", surgery("x", apply=lambda t, g: Report(companions={"model": nn.Identity()})))],
        )


def test_two_surgeries_of_one_name_are_a_conflict_that_names_both_plugins(tiny) -> None:
    with pytest.raises(ConflictError, match=r"'one' and 'two' both have a surgery 'gate'"):
        build_model(tiny(), NONE, [("one", surgery()), ("two", surgery())])


def test_loading_without_a_surgery_that_is_needed_says_what_to_add(tiny, tmp_path) -> None:
    folder = write(build_model(tiny(), LORA, [("toy", surgery())], seed=7), tmp_path / "saved")
    with pytest.raises(
        CheckpointError,
        match=r"surgery 'gate' of plugin 'toy' made these weights, but isn't switched on; add --plugin toy",
    ):
        build_model(ModelConfig(name=str(folder)), train=False)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["requires"] == ["toy"] and manifest["surgeries"][0]["seed"] == 7


def test_an_after_load_surgery_may_be_put_on_a_saved_model_that_never_knew_it(tiny, batch, tmp_path) -> None:
    plain = build_model(tiny(), LORA, seed=7)
    shake(plain)
    folder = write(plain, tmp_path / "saved")
    built = build_model(ModelConfig(name=str(folder)), None, [("toy", surgery())], seed=3, train=False)
    fresh = build_model(tiny(), NONE, [("toy", surgery())], seed=3)
    assert torch.equal(bare(built.module).model.norm.gate.weight, fresh.module.model.norm.gate.weight)
    with torch.no_grad():
        bare(built.module).model.norm.gate.weight.zero_()
    assert torch.equal(LocalPolicy(built.module).logps(batch), LocalPolicy(plain.module).logps(batch))


def test_a_surgery_before_loading_changes_the_config_and_what_it_adds_counts_as_its_own(
    tiny, tmp_path
) -> None:
    def biased(config, generator):
        config.mlp_bias = True
        return Report(changed=("config.mlp_bias",))

    one = [("toy", surgery("biased", "before_load", biased, trainable=("*.mlp.*.bias",)))]
    build_model(tiny(), seed=7).module.save_pretrained(tmp_path / "base")
    built = build_model(ModelConfig(name=str(tmp_path / "base")), LORA, one, seed=7)
    added = {
        f"model.layers.{layer}.mlp.{part}.bias"
        for layer in (0, 1)
        for part in ("gate_proj", "up_proj", "down_proj")
    }
    assert set(built.own) == added == set(built.trainable)
    assert built.base_config["mlp_bias"] is False and built.config.mlp_bias is True
    shake(built)
    again = build_model(ModelConfig(name=str(write(built, tmp_path / "saved"))), None, one, train=False)
    assert all(
        torch.equal(value, again.module.state_dict()[name])
        for name, value in built.module.state_dict().items()
    )


def test_a_surgery_that_wakes_the_base_under_an_adapter_without_naming_it_is_refused(tiny) -> None:
    def wake(model, generator):
        bare(model).model.norm.weight.requires_grad_(True)
        return Report(changed=("model.norm",))

    with pytest.raises(PluginError, match=r"SURGERY-AWAKE.*model.norm.weight"):
        build_model(tiny(), LORA, [("toy", surgery("wake", "after_adapters", wake))])
    built = build_model(
        tiny(), LORA, [("toy", surgery("wake", "after_adapters", wake, trainable=("model.norm.weight",)))]
    )
    assert built.own == ("model.norm.weight",) and built.kind == "adapter"


def test_a_base_that_a_surgery_froze_is_not_saved(tiny, tmp_path) -> None:
    def freeze(model, generator):
        model.requires_grad_(False)
        with torch.random.fork_rng():
            return draft(model, generator)

    one = [("toy", surgery("draft", apply=freeze, trainable=("companions.draft.*",)))]
    built = build_model(tiny(), NONE, one, seed=7)
    assert built.kind == "adapter" and list(trainable_parameters(built)) == ["companions.draft.weight"]
    shake(built)
    folder = write(built, tmp_path / "saved")
    assert sorted(path.name for path in folder.iterdir()) == ["draft.safetensors", "manifest.json"]
    again = build_model(ModelConfig(name=str(folder)), None, one, seed=1, train=False)
    assert torch.equal(again.companions["draft"].weight, built.companions["draft"].weight)
    assert again.base_hash == built.base_hash


def test_weights_of_another_base_are_refused(tiny, tmp_path) -> None:
    folder = write(build_model(tiny(), LORA, seed=7), tmp_path / "saved")
    with pytest.raises(CheckpointError, match=r"WEIGHTS-BASE"):
        load_weights(build_model(tiny(), LORA, seed=8), folder)
    with pytest.raises(CheckpointError, match=r"WEIGHTS-KIND"):
        load_weights(build_model(tiny(), NONE, seed=7), folder)
    with pytest.raises(CheckpointError, match=r"WEIGHTS-SHAPE|WEIGHTS-NAMES"):
        load_weights(build_model(tiny(), AdapterConfig(kind="lora", r=3), seed=7), folder)


def test_patterns_find_a_tied_parameter_under_either_name(tiny) -> None:
    frozen = surgery("t", apply=lambda m, g: Report(changed=("lm_head",)), trainable=("lm_head.weight",))
    built = build_model(tiny(tie_word_embeddings=True), LORA, [("toy", frozen)])
    assert [name for name in trainable_parameters(built) if "lora" not in name] == [
        "model.embed_tokens.weight"
    ]


def test_parameters_fall_into_groups_by_what_they_are(tiny) -> None:
    """No decay: norms (1 + 2 x 2), the embedding; the surgery's own group holds its gate; the rest, 2 x 7
    matrices and the head, decays.
    """
    one = [("toy", surgery(no_weight_decay=("model.norm.gate.*",)))]
    built = build_model(tiny(), NONE, one)
    groups = {group["name"]: group for group in parameter_groups(built, 0.1)}
    assert {name: group["weight_decay"] for name, group in groups.items()} == {
        "decay": 0.1,
        "no_decay": 0.0,
        "surgery_no_decay": 0.0,
    }
    assert groups["surgery_no_decay"]["names"] == ["model.norm.gate.weight"]
    assert len(groups["decay"]["names"]) == 2 * 7 + 1 and len(groups["no_decay"]["names"]) == 1 + 4 + 1
    assert sum(len(group["params"]) for group in groups.values()) == len(list(built.module.parameters()))
    tied = {
        group["name"]: group for group in parameter_groups(build_model(tiny(tie_word_embeddings=True)), 0.1)
    }
    assert "model.embed_tokens.weight" in tied["no_decay"]["names"] and len(tied["decay"]["names"]) == 14


def test_facts_count_what_there_is(tiny) -> None:
    """Per layer: q 256, k and v 128 each, o 256, three of the MLP 384 each, two norms of 16 = 1952; twice
    that, the last norm 16,
    embedding and head 592 each: 5104. LoRA of rank 2: 2 x (sum of widths) per matrix: q 64, k 48, v 48, o
    64, 3 x 80 = 464 a layer."""
    built = build_model(tiny(), LORA, [("toy", surgery())])
    facts = model_facts(built)
    assert facts.parameters == 5104 + 928 + 16 and facts.adapter == 928 and facts.surgeries == 16
    assert facts.trainable == 928 + 16 and facts.base_hash == built.base_hash and facts.model_type == "llama"


def test_facts_before_loading_equal_those_after(tiny, tmp_path) -> None:
    build_model(tiny()).module.save_pretrained(tmp_path / "base")
    model = ModelConfig(name=str(tmp_path / "base"))
    before, after = source_facts(resolve_model(model), LORA), model_facts(build_model(model, LORA))
    assert (before["parameters"], before["trainable"], before["weights"]) == (
        after.parameters,
        after.trainable,
        after.base_hash,
    )
    assert source_facts(resolve_model(tiny()), NONE)["trainable"] == 5104
    changed = source_facts(resolve_model(tiny(rope_theta=5.0)), NONE)["weights"]
    assert changed.startswith("config:") and changed != source_facts(resolve_model(tiny()), NONE)["weights"]


def test_rank_local_names_are_those_of_a_module_that_holds_the_model(tiny) -> None:
    built = build_model(
        tiny(), LORA, [("toy", surgery(rank_local=("*.gate.weight", "model.layers.1.mlp.up_proj.weight")))]
    )
    holder = nn.Module()
    holder.model = built.module
    names = rank_local_names(built)
    assert len(names) == 2 and set(names) <= {name for name, _ in holder.named_parameters()}


def test_a_new_surgery_over_a_saved_one_keeps_its_own_numbers(tiny, tmp_path) -> None:
    """The saved folder knows ``gate`` only; ``norms`` wakes parameters of the base, which the folder
    can't hold.
    """
    folder = write(build_model(tiny(), LORA, [("toy", surgery())], seed=7), tmp_path / "saved")
    norms = surgery(
        "norms", apply=lambda m, g: Report(changed=("n",)), trainable=("model.layers.*norm.weight",)
    )
    built = build_model(ModelConfig(name=str(folder)), LORA, [("toy", surgery()), ("new", norms)], seed=3)
    assert len([name for name in built.own if "layernorm" in name]) == 4
    assert len(weights_manifest(built)["surgeries"]) == 2
