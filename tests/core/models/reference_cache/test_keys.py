"""What makes another cache or another entry, and what doesn't."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from llmfw.core.models import ReferenceCache, build_model, reference_key
from llmfw.core.models.reference_cache import example_key
from llmfw.core.records import Report, Surgery
from llmfw.core.schema import AdapterConfig

LORA = AdapterConfig(kind="lora", r=2)


def surgery(name: str = "still", batch_keys: tuple[str, ...] = ()) -> Surgery:
    """One that touches a buffer of its own and nothing else."""

    def apply(model: Any, generator: torch.Generator) -> Report:
        model.model.norm.register_buffer("mark", torch.zeros(1))
        return Report(changed=("model.norm",))

    return Surgery(name=name, phase="after_load", apply=apply, batch_keys=batch_keys)


def key_of(tiny: Any, **changes: Any) -> dict[str, Any]:
    """The key of a tiny model: ``model``, ``config`` and so on change one thing each."""
    model = replace(tiny(**changes.get("config", {})), **changes.get("model", {}))
    adapter, seed = changes.get("adapter", LORA), changes.get("seed", 5)
    built = build_model(model, adapter, changes.get("surgeries", ()), seed)
    return reference_key(
        built, precision=changes.get("precision", "32-true"), settings=changes.get("settings")
    )


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 6},
        {"model": {"dtype": "bfloat16"}},
        {"model": {"attention": "eager"}},
        {"precision": "bf16-mixed"},
        {"config": {"rope_theta": 5000.0}},
        {"config": {"num_hidden_layers": 1}},
        {"surgeries": [("toy", surgery())]},
        {"surgeries": [("toy", surgery(batch_keys=("prompt_length",)))]},
    ],
    ids=lambda change: json.dumps(change, default=lambda one: "surgery"),
)
def test_weights_architecture_arithmetic_and_surgeries_make_another_cache(tiny, tmp_path, change) -> None:
    plain, other = key_of(tiny), key_of(tiny, **change)
    assert ReferenceCache(plain, tmp_path).folder != ReferenceCache(other, tmp_path).folder


@pytest.mark.parametrize(
    "change",
    [
        {"adapter": replace(LORA, r=7, dropout=0.1)},
        {"adapter": AdapterConfig()},
        {"model": {"name": "the same weights by another name"}},
        {"settings": {"a_loss": {"alpha": 0.5, "beta": 0.2}}},
    ],
    ids=str,
)
def test_adapters_names_and_a_losss_settings_do_not(tiny, change) -> None:
    assert key_of(tiny) == key_of(tiny, **change)


def test_the_settings_of_a_plugin_with_a_surgery_do(tiny) -> None:
    """Two scales of one surgery change the same modules, but not to the same numbers."""
    keys = [
        key_of(
            tiny, surgeries=[("toy", surgery())], settings={"toy": {"scale": scale}, "other": {"x": scale}}
        )
        for scale in (1.0, 2.0)
    ]
    assert keys[0] != keys[1]
    assert keys[0] == key_of(
        tiny, surgeries=[("toy", surgery())], settings={"toy": {"scale": 1.0}, "other": {"x": 9}}
    )


def test_the_key_is_json_and_holds_no_path_or_device(tiny, tmp_path: Path) -> None:
    key = key_of(tiny)
    assert json.loads(json.dumps(key)) == key
    assert "+" not in key["torch"]
    assert (
        ReferenceCache(key, tmp_path).folder == ReferenceCache(json.loads(json.dumps(key)), tmp_path).folder
    )


def test_entries_go_by_tokens_masks_and_what_the_model_receives_beside_them(sample) -> None:
    one = sample("a", ((1, 2, 3), 1), ((1, 4), 1))
    assert example_key(one) == example_key(replace(one, id="b"))
    for other in (
        sample("a", ((1, 2, 3), 2), ((1, 4), 1)),
        sample("a", ((1, 2), 1), ((3, 1, 4), 1)),
        sample("a", ((1, 4), 1), ((1, 2, 3), 1)),
        sample("cut", ((1, 2), 1), ((1, 4), 1)),
    ):
        assert example_key(one) != example_key(other)
    told = replace(one, extra={"n": 2})
    assert example_key(one) == example_key(told)
    assert example_key(one, ["n"]) != example_key(told, ["n"])
