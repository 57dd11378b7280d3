"""The settings of the run that wrote a folder of weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmfw.core.settings.strict_yaml import load_file

_OF_RUN = ("plugins", "seed", "models", "tokenizer", "data", "trainer", "generation", "evaluation")
"""Sections of a saved run under which its weights are measured again, beside those of its plugins."""


def settings_of_run(folder: Path | None) -> tuple[Path, dict[str, Any]] | None:
    """(run, settings) where ``folder`` holds weights of a run (its ``final`` or a checkpoint); else None.

    They are the run's data, plugins, sampling and the like, but not its model: that is what was saved.
    """
    for run in folder.parents[:2] if folder else ():
        if (run / "run.json").is_file() and (run / "config.yaml").is_file():
            saved = load_file(run / "config.yaml").data
            plugins = saved.get("plugins") or []
            kept = {key: _literal(saved[key]) for key in (*_OF_RUN, *plugins) if key in saved}
            for key in ("name", "train", "vocab_size"):  # the tokenizer stands beside the weights
                kept.get("tokenizer", {}).pop(key, None)
            return run, kept
    return None


def _literal(value: Any) -> Any:
    """A saved value as it was meant: a file escapes ``${``."""
    if isinstance(value, str):
        return value.replace("\\${", "${")
    if isinstance(value, list):
        return [_literal(one) for one in value]
    if isinstance(value, dict):
        return {key: _literal(one) for key, one in value.items()}
    return value
