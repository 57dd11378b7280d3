"""Which plugins are on, whose defaults hold, and what they may not set."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmfw.core.config import load_config
from llmfw.core.errors import ConflictError, PluginError
from tests.core.config.helpers import SOURCE, file, refused
from tests.toys import installed, write_toy


def test_plugins_come_from_files_and_the_command_line_in_order_and_can_be_left_out(
    site: Path, tmp_path: Path
):
    listed = file(tmp_path, "plugins: [second, first]\noptimizer: {lr: 1e-3}\n")
    assert load_config(files=[listed]).plugin_names == ["second", "first"]
    assert load_config(files=[listed], no_plugins=["second"]).plugin_names == ["first"]
    more = load_config(files=[listed], plugins=["strict", "first"], overrides=["strict.needed=2"])
    assert more.plugin_names == ["second", "first", "strict"]
    assert load_config(overrides=["plugins=[first]"]).plugin_names == ["first"]
    assert load_config(plugins=["first"]).origin["plugins"].layer == "command line"
    assert load_config(files=[listed]).origin["plugins"].line == 1


def test_an_unknown_plugin_is_refused_with_its_place_and_near_names(site: Path, tmp_path: Path):
    error = refused(files=[file(tmp_path, "seed: 1\nplugins: [frist]\n")])
    assert (error.code, error.line, error.key, error.exit_code) == ("PLUGIN-UNKNOWN", 2, "plugins", 2)
    assert "first" in error.mend
    assert refused(plugins=["nowhere"]).key == "--plugin"
    assert refused(no_plugins=["nowhere"]).code == "PLUGIN-UNKNOWN"
    assert refused(plugins=["first"], no_plugins=["first"]).code == "PLUGIN-TWICE"


def test_two_plugins_that_differ_are_a_conflict_that_names_both_and_the_way_out(site: Path):
    error = refused(ConflictError, plugins=["first", "second"])
    assert (error.code, error.key) == ("CONFIG-CONFLICT", "optimizer.lr")
    assert "first" in error.what and "second" in error.what
    assert "--defaults-from first or --defaults-from second" in error.mend


def test_a_conflict_of_plugins_is_settled_by_the_user(site: Path, tmp_path: Path):
    both = ["first", "second"]
    assert load_config(plugins=both, overrides=["optimizer.lr=1"]).root.optimizer.lr == 1
    assert load_config(plugins=both, files=[file(tmp_path, "optimizer: {lr: 2}")]).root.optimizer.lr == 2
    assert load_config(plugins=both, defaults_from="first").root.optimizer.lr == 1e-4
    assert load_config(plugins=both, defaults_from="second").root.optimizer.lr == 2e-4
    assert refused(plugins=["first"], defaults_from="second").code == "PLUGIN-OFF"


def test_one_plugin_counting_steps_and_another_epochs_are_a_conflict(site: Path):
    write_toy(site, "third", SOURCE, overlay="trainer:\n  epochs: 1\n")
    with installed(site):
        assert refused(ConflictError, plugins=["first", "third"]).key in (
            "trainer.max_steps",
            "trainer.epochs",
        )


@pytest.mark.parametrize(
    ("overlay", "key"),
    [
        ("plugins: [first]", "plugins"),
        ("sandbox: {level: unsafe}", "sandbox.level"),
        ("tracking: {uri: 'http://elsewhere'}", "tracking.uri"),
        ("model: {trust_remote_code: true}", "model.trust_remote_code"),
        ("models: {judge: {trust_remote_code: true}}", "models.judge.trust_remote_code"),
        ("model: {package: {distribution: other}}", "model.package.distribution"),
        ("data: {package: {distribution: other}}", "data.package.distribution"),
        ("first: {alpha: 1}", "first.alpha"),
        ("optimizer: {rate: 1}", "optimizer.rate"),
        ("optimizer: {lr: fast}", "optimizer.lr"),
    ],
)
def test_what_a_plugins_defaults_may_not_set_is_the_plugins_fault(site: Path, overlay: str, key: str):
    write_toy(site, "greedy", SOURCE, overlay=f"# defaults\n{overlay}\n")
    with installed(site):
        error = refused(PluginError, plugins=["first", "greedy"], overrides=["optimizer.lr=1"])
    assert (error.exit_code, error.line, error.key) == (4, 2, key)
    assert "greedy" in error.what


def test_a_saved_runs_settings_lie_between_plugins_and_files(site: Path, tmp_path: Path):
    base = {"plugins": ["first"], "optimizer": {"lr": 3e-4, "clip": 2.0}, "first": {"alpha": 0.75}}
    path = file(tmp_path, "optimizer: {clip: 5}\n")
    resolved = load_config(base=base, files=[path])
    assert (resolved.root.optimizer.lr, resolved.root.optimizer.clip) == (3e-4, 5.0)
    assert resolved.plugin_settings["first"].alpha == 0.75
    assert resolved.origin["optimizer.lr"].layer == "saved run"
    assert base["optimizer"] == {"lr": 3e-4, "clip": 2.0}
