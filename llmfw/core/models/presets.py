"""Models that have a short name: yaml files beside this package whose keys are those of ``model``."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

import yaml


@cache
def preset_names() -> tuple[str, ...]:
    """Names of all presets, sorted."""
    folder = files("llmfw") / "configs" / "models"
    return tuple(
        sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    )


@cache
def _text(name: str) -> str:
    return (files("llmfw") / "configs" / "models" / f"{name}.yaml").read_text(encoding="utf-8")


def preset(name: str) -> Mapping[str, Any]:
    """The keys that a preset sets, freshly read."""
    keys = yaml.safe_load(_text(name))
    assert isinstance(keys, dict), f"preset {name} is no mapping"
    return keys


def near_presets(name: str) -> list[str]:
    """Presets whose names resemble ``name``, best first."""
    return get_close_matches(name.lower(), preset_names(), n=2, cutoff=0.5)
