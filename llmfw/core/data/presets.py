"""Data sets that have a name: ``configs/data/NAME.yaml`` says of what, a source here how they're made."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.resources import files
from typing import Any, Final

from llmfw.core.data.module import DataModule
from llmfw.core.errors import UsageError
from llmfw.core.schema import DataConfig

SOURCES: Final[dict[str, str]] = {
    "chain-arithmetic": "llmfw.core.data.chains.rows:ChainArithmetic",
    "champ-first-wrong": "llmfw.core.data.champ.rows:ChampFirstWrong",
    "champ-preferences": "llmfw.core.data.champ.rows:ChampPreferences",
    "champ-problems": "llmfw.core.data.champ.rows:ChampProblems",
    "reasoning-gym": "llmfw.core.data.reasoning:ReasoningGym",
}
"""Preset -> class built with (data settings, tokenizer); it's imported when it's opened."""


def preset_settings(name: str) -> dict[str, Any]:
    """What ``configs/data/NAME.yaml`` says, for a source of a mixture."""
    import yaml

    text = (files("llmfw") / "configs" / "data" / f"{name}.yaml").read_text(encoding="utf-8")
    said: dict[str, Any] = yaml.safe_load(text)
    return said


def open_preset(config: DataConfig, tokenizer: Any) -> DataModule | None:
    """The source of the preset that ``config.name`` names, or None where it names no preset."""
    target = SOURCES.get(config.name)
    if target is None:
        return None
    if not config.package:
        raise UsageError(
            "PRESET",
            "data.package is empty",
            key="data.package",
            mend="use the preset as it is: data=" + config.name,
        )
    module, _, name = target.partition(":")
    source: Callable[[DataConfig, Any], DataModule] = getattr(import_module(module), name)
    return source(config, tokenizer)
