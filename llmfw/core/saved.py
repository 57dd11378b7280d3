"""The settings of the run that wrote a folder of weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmfw.core.settings.strict_yaml import load_file

_OF_RUN = ("plugins", "seed", "models", "tokenizer", "data", "trainer", "generation", "evaluation")
"""Sections of a saved run under which its weights are measured again, beside those of its plugins."""


def settings_of_run(folder: Path | None) -> tuple[Path, dict[str, Any], list[str]] | None:
    """(run, settings, keys left out) where ``folder`` holds weights of a run (``final`` or a checkpoint).

    They are the run's data, plugins, sampling and the like, but not its model: that is what was saved.
    """
    for run in folder.parents[:2] if folder else ():
        if (run / "run.json").is_file() and (run / "config.yaml").is_file():
            saved = load_file(run / "config.yaml").data
            plugins = saved.get("plugins") or []
            kept = {key: _literal(saved[key]) for key in (*_OF_RUN, *plugins) if key in saved}
            for key in ("name", "train", "vocab_size"):  # the tokenizer stands beside the weights
                kept.get("tokenizer", {}).pop(key, None)
            return run, kept, _take_out_trust(kept, "")
    return None


def _take_out_trust(settings: dict[str, Any], at: str) -> list[str]:
    """Take out what would run code or ask servers: a run may come from someone else, and the user says whom
    to trust. The keys that went.
    """
    gone: list[str] = []
    model = settings.get("model")
    if isinstance(model, dict) and model.pop("trust_remote_code", False):
        gone.append(f"{at}model.trust_remote_code")
    models = settings.get("models") or {}
    for name, auxiliary in list(models.items()):
        named = next((key for key in ("script", "endpoint") if auxiliary.get(key)), None)
        if named is not None:
            del models[name]
            gone.append(f"{at}models.{name}.{named}")
            continue
        if auxiliary.pop("trust_remote_code", False):
            gone.append(f"{at}models.{name}.trust_remote_code")
        gone += _take_out_trust(auxiliary.get("fit") or {}, f"{at}models.{name}.fit.")
    evaluation = settings.get("evaluation") or {}
    if evaluation.pop("lm_eval_path", None):
        evaluation.pop("lm_eval", None)
        gone.append(f"{at}evaluation.lm_eval_path")
    return gone


def _literal(value: Any) -> Any:
    """A saved value as it was meant: a file escapes ``${``."""
    if isinstance(value, str):
        return value.replace("\\${", "${")
    if isinstance(value, list):
        return [_literal(one) for one in value]
    if isinstance(value, dict):
        return {key: _literal(one) for key, one in value.items()}
    return value
