"""The plugin's wiring: its overlay is that of the baseline, evaluations, settings out of range."""

from __future__ import annotations

from llmfw.core.config import load_config
from llmfw.plugins.gsi.plugin import Gsi
from llmfw.testing import Runner
from tests.toys.runs import run_of


def test_the_overlay_is_the_baselines_so_that_runs_compare() -> None:
    flats = [load_config(plugins=[name]).flat() for name in ("rft", "gsi")]
    core = [
        {key: value for key, value in flat.items() if key.partition(".")[0] not in ("rft", "gsi", "plugins")}
        for flat in flats
    ]
    assert core[0] == core[1]
    shared = [key.removeprefix("rft.") for key in flats[0] if key.startswith("rft.")]
    alike = [key for key in shared if f"gsi.{key}" in flats[1]]
    assert {"rounds", "samples", "temperature", "gold_epochs", "start", "keep_gold"} <= set(alike)
    assert {key: flats[0][f"rft.{key}"] for key in alike} == {key: flats[1][f"gsi.{key}"] for key in alike}


def test_held_out_problems_are_measured_unless_none_are_asked_for() -> None:
    run = run_of(seed=1)
    (evaluation,) = Gsi(Gsi.Config()).llmfw_evaluations(run=run)
    assert set(evaluation.when) == {"start", "end"}
    assert list(Gsi(Gsi.Config(problems=0)).llmfw_evaluations(run=run)) == []


def test_an_unknown_strategy_is_refused_with_the_known_ones(runner: Runner) -> None:
    done = runner("plan", "--plugin", "gsi", "gsi.strategy=hope")
    done.assert_failed(match="gsi.strategy", code=2)
    assert "state_reset" in done.messages
