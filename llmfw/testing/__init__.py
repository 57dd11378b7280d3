"""What plugin authors test with."""

from __future__ import annotations

import importlib
from types import ModuleType

from llmfw.core.discovery import card


def plugin_module(name: str, module: str) -> ModuleType:
    """A module of an installed plugin's package, e.g. ``plugin_module("ld_dpo", "functional")``.

    It's found through the entry point: a test stays right when the plugin moves to another distribution.
    """
    package = card(name).value.partition(":")[0].rpartition(".")[0]
    return importlib.import_module(f"{package}.{module}")
