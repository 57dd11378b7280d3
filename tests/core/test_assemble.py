"""From words to a settled configuration: what a model's name means before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmfw.core.assemble import settle
from llmfw.core.errors import UsageError

CONFIG = "{model_type: llama, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2}"


def test_a_model_made_from_a_config_may_bear_any_name(tmp_path: Path):
    assert settle(overrides=["model=mine", f"model.config={CONFIG}"]).source.kind == "scratch"
    file = tmp_path / "mine.yaml"
    file.write_text(f"model: {{name: mine, config: {CONFIG}}}\n")
    settled = settle(files=[file])
    assert (settled.source.kind, settled.source.model.name) == ("scratch", "mine")


def test_a_name_on_the_command_line_puts_a_files_config_aside(tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.write_text(f"model: {{name: mine, config: {CONFIG}}}\n")
    settled = settle(files=[file], overrides=["model=tiny-llama"])
    assert settled.source.model.name == "tiny-llama"
    assert settled.source.model.config["hidden_size"] != 16
    with pytest.raises(UsageError, match="did you mean tiny-llama"):
        settle(files=[file], overrides=["model=tiny-lama"])
