"""Plugins that are installed and switched off cost a run nothing: no number, no import, no call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.idle_plugins import install, probe
from llmfw.testing.distributions import write_plugin
from tests.thirdparty.evict import built_ins

STEPS = 6
TOLD = """
import pathlib
import llmfw
from lightning.pytorch import Callback
from llmfw import Plugin, hookimpl

def note(what):
    with open("told.txt", "a") as file:
        file.write(what + chr(10))

note("imported")

class Each(Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        note("step")

class Toy(Plugin):
    @hookimpl
    def llmfw_callbacks(self, run):
        note("asked")
        return [Each()]
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The same run: all built-ins and one more plugin are installed and off; none is installed; the one is
    on.
    """
    here = tmp_path_factory.mktemp("idle")
    full, bare = (install(here / name, plugins=name == "full") for name in ("full", "bare"))
    write_plugin(here / "site", "watchful", TOLD)
    ways = {
        "off": ([full, here / "site"], ()),
        "none": ([bare], ()),
        "on": ([full, here / "site"], ("--plugin", "watchful")),
    }
    return {
        name: {
            **probe("count", places, here / name, *words, f"trainer.max_steps={STEPS}"),
            "noted": _noted(here / name / "told.txt"),
        }
        for name, (places, words) in ways.items()
    }


def _noted(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []


def test_one_environment_has_every_plugin_and_the_other_none(told: dict[str, dict[str, Any]]) -> None:
    assert told["off"]["plugins"] == sorted([*built_ins(), "watchful"])
    assert told["none"]["plugins"] == []


def test_losses_and_weights_are_the_same_bit_for_bit(told: dict[str, dict[str, Any]]) -> None:
    assert len(told["off"]["losses"]) == 1 + STEPS // 2  # the first step, then every other one
    assert told["off"]["losses"] == told["none"]["losses"]
    assert told["off"]["weights"] == told["none"]["weights"]


def test_no_module_of_a_plugin_is_imported(told: dict[str, dict[str, Any]]) -> None:
    assert told["off"]["imported"] == [] and told["off"]["noted"] == []
    assert "toy_watchful.plugin" in told["on"]["imported"]


def test_a_step_makes_the_same_python_calls_function_by_function(told: dict[str, dict[str, Any]]) -> None:
    """Steps 2 to 5, each from the end of the step before to its own: with loading, logging and callbacks. The
    last one also writes a checkpoint, which looks for modules along a path of another length.
    """
    off, none, on = (told[name]["calls"][:-1] for name in ("off", "none", "on"))
    assert len(off) == len(none) == STEPS - 2
    for step, (one, other) in enumerate(zip(off, none, strict=True), start=2):
        assert sum(one.values()) > 500
        assert one == other, f"step {step}"
    # a plugin that is on is seen in the count: its callback, and what measures its part on steps 2 and 3
    assert all(sum(one.values()) > sum(other.values()) for one, other in zip(on, none, strict=True))
    assert all(any("Each.on_train_batch_end" in name for name in one) for one in on)


def test_hooks_and_callbacks_of_a_plugin_are_called_only_where_it_is_on(
    told: dict[str, dict[str, Any]],
) -> None:
    assert told["on"]["noted"] == ["imported", "asked", *["step"] * STEPS]
    assert told["off"]["noted"] == []
