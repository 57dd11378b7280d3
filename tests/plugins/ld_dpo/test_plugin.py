"""The plugin's wiring: card, settings, records."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from llmfw.core.config import load_config
from llmfw.core.discovery import card, load_class
from llmfw.core.errors import UsageError
from llmfw.core.records import Loss

NAME = "ld_dpo"


def instance(**settings: Any) -> Any:
    plugin = load_class(card(NAME))
    return plugin(plugin.Config(**settings))  # type: ignore[call-arg]


def loss(**settings: Any) -> Loss:
    run = SimpleNamespace(seed=1, rows=lambda split: [])
    record = instance(**settings).llmfw_loss(run=run, tokenizer=None, model_config=None)
    assert isinstance(record, Loss)
    return record


def test_the_loss_is_over_pairs() -> None:
    record = loss()
    assert (record.batch_kind, record.unit, record.needs_reference) == ("preference", "pairs", True)


def test_the_overlay_sets_what_a_run_of_minutes_needs() -> None:
    resolved = load_config(plugins=[NAME])
    root = resolved.root
    assert (root.model.name, root.data.name, root.adapter.kind) == (
        "smollm2-135m",
        "champ-preferences",
        "lora",
    )
    assert root.data.options["lengths"] == "balanced" and root.data.too_long == "drop"
    assert root.trainer.max_steps is not None


def test_both_overlays_say_the_same_so_that_runs_compare() -> None:
    flats = [load_config(plugins=[name]).flat() for name in ("dpo", "ld_dpo")]
    core = [
        {
            key: value
            for key, value in flat.items()
            if key.partition(".")[0] not in ("dpo", "ld_dpo", "plugins")
        }
        for flat in flats
    ]
    assert core[0] == core[1]


def test_answers_are_measured_before_and_after_unless_switched_off() -> None:
    run = SimpleNamespace(seed=1, rows=lambda split: [])
    (evaluation,) = instance().llmfw_evaluations(run=run)
    assert set(evaluation.when) == {"start", "end"}
    assert list(instance(answers=0).llmfw_evaluations(run=run)) == []


def test_metrics_are_for_held_out_pairs_and_have_names_of_their_own() -> None:
    run = SimpleNamespace(seed=1, rows=lambda split: [])
    names = [metric.name for metric in instance().llmfw_metrics(run=run, stage="validation")]
    assert len(names) == len(set(names)) > 0
    assert list(instance().llmfw_metrics(run=run, stage="train")) == []


def test_the_neutral_setting_is_dpo() -> None:
    neutral = card(NAME).neutral
    assert neutral == {"baseline": "dpo", "exact": True, "settings": {"alpha": 1.0}}


@pytest.mark.parametrize(
    "wrong", ["ld_dpo.alpha=1.5", "ld_dpo.alpha=-0.1", "ld_dpo.beta=0", "ld_dpo.ref_mode=none"]
)
def test_settings_outside_their_range_are_refused_on_the_command_line(wrong: str) -> None:
    with pytest.raises(UsageError, match=wrong.partition("=")[0]):
        load_config(plugins=[NAME], overrides=[wrong])


def test_it_has_no_length_normalised_form() -> None:
    """Token weights with IPO or SimPO are undefined in the paper: there is no setting that asks for it."""
    assert {item.name for item in dataclasses.fields(load_class(card(NAME)).Config)} == {
        "alpha", "beta", "ref_mode", "answers"
    }  # fmt: skip
