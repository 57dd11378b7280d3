"""``${key}`` repeats another setting and does nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmfw.core.config import load_config
from tests.core.config.helpers import file, refused


class TestInterpolation:
    """``${key}`` repeats another setting and does nothing else."""

    def test_a_setting_may_repeat_another_with_its_type(self, site: Path):
        overrides = ["optimizer.lr=0.25", "first.alpha=${optimizer.lr}", "run.name=lr-${optimizer.lr}"]
        flat = load_config(plugins=["first"], overrides=overrides).flat()
        assert (flat["first.alpha"], flat["run.name"]) == (0.25, "lr-0.25")

    def test_a_preset_is_found_through_it(self):
        resolved = load_config(overrides=["model=tiny-llama", "models.judge=${model.name}"])
        assert resolved.root.models["judge"].config["model_type"] == "llama"

    @pytest.mark.parametrize(
        "text",
        [
            "${oc.env:HOME}",
            "${oc.decode:x}",
            "${env:HOME}",
            "x${oc.env:A,b}",
            "${a b}",
            "${",
            "${a${b}}",
            "${}",
        ],
    )
    def test_resolvers_and_other_forms_are_refused(self, tmp_path: Path, text: str):
        error = refused(files=[file(tmp_path, f"run:\n  name: '{text}'\n")])
        assert (error.code, error.line, error.key) == ("CONFIG-INTERPOLATION", 2, "run.name")

    def test_an_unknown_key_is_refused_with_near_ones(self):
        error = refused(overrides=["run.name=${optimizer.lrr}"])
        assert (error.code, error.mend) == ("CONFIG-INTERPOLATION", "did you mean optimizer.lr?")

    @pytest.mark.parametrize(
        "pair", [["run.name=${run.dir}", "run.dir=${run.name}"], ["run.name=${run.name}"]]
    )
    def test_a_circle_is_refused(self, pair: list[str]):
        assert refused(overrides=pair).code == "CONFIG-INTERPOLATION"

    def test_a_value_of_another_type_is_refused(self):
        error = refused(overrides=["optimizer.lr=${model.name}"])
        assert (error.code, error.key) == ("CONFIG-TYPE", "optimizer.lr")
        assert refused(overrides=["seed=\\${x}"]).code == "CONFIG-TYPE"
        assert refused(overrides=["data.packing=${seed}"]).code == "CONFIG-TYPE"
        assert refused(overrides=["run.name=${model}"]).code == "CONFIG-TYPE"

    def test_the_characters_themselves_are_written_with_a_backslash(self, tmp_path: Path):
        resolved = load_config(overrides=["generation.stop=['\\${x}']", "run.name=a\\${b}"])
        assert (resolved.root.generation.stop, resolved.root.run.name) == (["${x}"], "a${b}")
        again = load_config(files=[file(tmp_path, resolved.to_yaml())])
        assert again.flat() == resolved.flat()
