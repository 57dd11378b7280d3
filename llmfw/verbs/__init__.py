"""The verbs of the command line, one module each; listed here, so that ``llmfw --help`` imports none."""

from __future__ import annotations

from collections.abc import Mapping

VERBS: Mapping[str, Mapping[str, str]] = {
    "Train": {
        "fit": "Train a model: one run, from settings to a checkpoint (alias: train).",
        "plan": "Print what a run would do, before any weight is read.",
        "profile": "Train a few steps and show where their time goes: a table and a trace.",
        "validate": "Held-out loss of a model, without training.",
        "evaluate": "Held-out loss and every evaluation of the plugins that are on.",
        "sweep": "Run a grid or a search over settings, as one MLflow run with children.",
        "ablate": "Train with and without a plugin, everything else the same.",
    },
    "Use": {
        "generate": "Answer prompts with a model, a run or a checkpoint.",
        "chat": "Talk to a model in the terminal.",
        "predict": "One line per input row: completion, log-prob or score.",
        "export": "Write a run's weights for transformers, PEFT, vLLM or llama.cpp, and check them.",
    },
    "Look": {
        "compare": "Runs side by side: settings, metrics, curves.",
        "config": "Print the settings that hold and where each came from; --keys lists all.",
        "data": "Inspect training data (rows, masks, lengths), or convert it.",
        "plugins": "List the installed plugins, show or check one, or begin your own.",
        "reproduce": "Run a plugin's claims again: baseline, method and controls over seeds, a verdict each.",
        "check": "Test that a loss gives one gradient however its samples are dealt out.",
        "verify": "Prove that a killed run ends as an untouched one, or that checkpoints are whole.",
        "ui": "Open MLflow's pages on this machine.",
    },
    "Set up": {
        "init": "Write a commented llmfw.yaml and README for your own data.",
        "doctor": "Check versions, hardware, folders and plugins; say how to mend what is wrong.",
        "cache": "List what is cached, explain why a run finds it or not, or remove it.",
        "sync": "Send what MLflow missed of a run.",
        "completion": "Print the script that completes llmfw's words in your shell.",
    },
}
"""Verbs of the core with their lines of help, by what one wants to do."""
ALIASES = {"train": "fit"}
CORE = {name: text for group in VERBS.values() for name, text in group.items()}
