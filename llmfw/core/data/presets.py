"""Data sets that have a name: ``configs/data/NAME.yaml`` says what, a source here says how."""

from __future__ import annotations

from typing import Any

from llmfw.core.data.module import DataModule
from llmfw.core.schema import DataConfig


def open_preset(config: DataConfig, tokenizer: Any) -> DataModule | None:
    """The source of the preset that ``config.name`` names, or None where it names no preset."""
    return None
