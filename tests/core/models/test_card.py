"""Model cards: fields that the hub knows, numbers of the run, no path and no secret of this machine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml

from llmfw.core.models.card import card
from llmfw.core.models.card_front import Subject, front_matter
from llmfw.core.models.export import Base
from llmfw.core.models.lineage import Licence, Origin
from llmfw.core.models.plain import Agreement
from llmfw.core.models.usage import Usage
from llmfw.core.tracking.history import History, Paper, Result

HISTORY = History(
    name="mine",
    id="1" * 32,
    status="FINISHED",
    created="2026-01-01T00:00:00+00:00",
    step=16,
    steps=16,
    settings={
        "plugins": ["toy"],
        "seed": 7,
        "model.name": "/disk/me/models/base",
        "data.name": "/disk/me/data/pairs.jsonl",
        "data.max_length": 320,
        "data.packing": False,
        "optimizer.lr": 1e-4,
        "tracking.uri": "http://me:pass@store",
        "toy.token": "hf_" + "a" * 30,
    },
    plan="abc123",
    papers=(Paper(plugin="toy", distribution="toy 1.0", summary="A toy.", title="Toys", arxiv="2401.00001"),),
    versions={"torch": "2.13.0"},
    data={
        "source": "/disk/me/data/pairs.jsonl",
        "form": "preference",
        "max_length": 320,
        "too_long_policy": "drop",
        "too_long": 3,
        "files": ["/disk/me/data/pairs.jsonl"],
        "splits": {"train": {"samples": 1200, "tokens": 50000, "trained": 20000}},
    },
    training={"loss": (0.6931, 0.5)},
    held_out=(
        Result(name="loss", value=0.61),
        Result(name="rewards/accuracies", value=0.75, low=0.5, high=0.9, n=16),
        Result(name="logps/chosen", value=-40.0),
    ),
    evaluations=(Result(name="accuracy", value=0.5, before=0.25, low=0.3, high=0.7, n=32),),
)


def _subject(**changes: Any) -> Subject:
    usage = changes.pop("usage", Usage(format="hf", folder="out", dtype="float32"))
    made = Subject(
        title="out",
        usage=usage,
        model_type="llama",
        parameters=134_500_000,
        chain=(Origin(name="owner/base", words="owner/base of the hub", hub="owner/base", licence="mit"),),
        licence=Licence(id="mit", name="mit", why="that of owner/base, as its README.md states"),
        agreement=Agreement(difference=0.0, bound=0.0, tokens_equal=True, prompts=4, positions=100),
        asked="held-out rows of the run",
        history=HISTORY,
        defaults={"data.max_length": 512, "data.packing": False, "optimizer.lr": 2e-5},
    )
    return replace(made, **changes)


def _front(text: str) -> dict[str, Any]:
    found = yaml.safe_load(text.split("---\n")[1])
    assert isinstance(found, dict)
    return found


def test_the_front_matter_is_what_the_hub_reads():
    found = _front(card(_subject()))
    assert found["license"] == "mit" and found["base_model"] == ["owner/base"]
    assert found["base_model_relation"] == "finetune" and found["library_name"] == "transformers"
    assert found["pipeline_tag"] == "text-generation"
    assert found["tags"] == ["llmfw", "toy", "arxiv:2401.00001"]
    (index,) = found["model-index"]
    metrics = {one["name"]: one["value"] for one in index["results"][0]["metrics"]}
    assert metrics == {"held-out loss": 0.61, "held-out rewards/accuracies": 0.75, "accuracy": 0.5}
    assert index["results"][0]["dataset"] == {"name": "pairs.jsonl", "type": "pairs.jsonl"}


def test_every_section_holds_the_runs_own_numbers():
    text = card(_subject())
    assert "134.5 million parameters" in text and "16 optimizer steps, seed 7" in text
    assert "train: 1,200 pairs, 50,000 tokens, 20,000 of them trained on" in text
    assert "3 rows too long" in text
    assert "Toys ([arXiv 2401.00001](https://arxiv.org/abs/2401.00001))" in text
    assert "| accuracy | 0.25 | 0.5 | 0.3 to 0.7 | 32 |" in text
    assert "| training loss | 0.6931 | 0.5 |" in text and "logps/chosen" not in text
    assert "max |logit difference|: 0 (exact)" in text and "greedy tokens: equal" in text


def test_settings_are_those_that_differ_from_the_defaults():
    shown = card(_subject()).split("```yaml")[1].split("```")[0]
    assert "optimizer.lr: 0.0001" in shown and "data.max_length: 320" in shown
    assert "packing" not in shown and "tracking" not in shown and "seed" not in shown


def test_no_folder_and_no_secret_of_this_machine_is_in_a_card():
    text = card(_subject())
    assert "/disk" not in text and "pairs.jsonl" in text and "model.name: base" in text
    assert "hf_aaa" not in text and "me:pass" not in text


def test_a_licence_outside_the_hubs_list_is_other_with_its_name():
    found = front_matter(_subject(licence=Licence(id="other", name="House rules", why="stated")))
    assert (found["license"], found["license_name"]) == ("other", "House rules")


def test_an_unknown_licence_is_said_and_never_guessed():
    text = card(_subject(licence=Licence(id="unknown", name="unknown", why="not stated by the base model")))
    assert _front(text)["license"] == "unknown" and "not stated by the base model" in text
    assert "The licence is unknown" in text


@pytest.mark.parametrize(
    ("source", "files", "found"),
    [("owner/set", [], ["owner/set"]), ("data/rows.jsonl", ["data/rows.jsonl"], None)],
)
def test_only_hub_data_sets_are_in_the_front_matter(source, files, found):
    history = replace(
        HISTORY,
        settings={**HISTORY.settings, "data.name": source},
        data={**HISTORY.data, "source": source, "files": files},
    )
    assert front_matter(_subject(history=history)).get("datasets") == found


def test_the_package_of_a_preset_and_its_licence_are_in_the_card():
    package = {"data.package.distribution": "champ-dataset", "data.package.version": "1.0.0",
               "data.package.licence": "MIT", "data.name": "champ-preferences"}  # fmt: skip
    history = replace(
        HISTORY,
        settings={**HISTORY.settings, **package},
        data={**HISTORY.data, "source": "champ-preferences"},
    )
    text = card(_subject(history=history))
    assert (
        "champ-preferences (Python package champ-dataset 1.0.0)" in text
        and "Licence of the data: MIT" in text
    )


def test_an_adapter_names_its_base_and_peft():
    usage = Usage(
        format="adapter", folder="out", dtype="float32", base="out/base", adapter={"r": 16, "lora_alpha": 32}
    )
    text = card(_subject(usage=usage, base=Base(name="base", written=True, why="it was made from a seed")))
    found = _front(text)
    assert found["library_name"] == "peft" and found["base_model_relation"] == "adapter"
    assert "lora" in found["tags"] and "rank 16, alpha 32" in text and "Its base lies in `base/`" in text


def test_a_merged_adapter_over_a_quantised_base_says_what_that_changed():
    text = card(_subject(merged=True, quantization="nf4", quantized_difference=0.0251))
    assert "trained over a base in nf4" in text and "0.0251" in text and "merged into these weights" in text


def test_a_checkpoint_of_an_unfinished_run_is_called_one():
    text = card(_subject(history=replace(HISTORY, steps=None, step=8)))
    assert "8 optimizer steps; the training had not ended there" in text and "a checkpoint" in text


def test_a_model_that_was_not_trained_here_claims_nothing():
    text = card(_subject(history=None))
    assert "model-index" not in _front(text) and "Nothing was measured." in text
    assert "The weights are those of owner/base" in text


def test_sidecars_are_named_with_their_plugin():
    text = card(_subject(sidecars=("drafts.safetensors",), surgery_plugins=("beside",)))
    assert "`drafts.safetensors`: trained by plugin `beside`" in text
