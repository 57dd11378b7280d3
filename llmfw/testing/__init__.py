"""What plugin authors test with: the laws that every plugin keeps, tiny models, batches, a runner.

    from llmfw.testing import check_plugin, parametrize_with_checks

    pytest_plugins = ["llmfw.testing.fixtures"]   # in conftest.py: the fixtures

Names are loaded on first use. docs/conformance.md tells how they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmfw.core.lazy import door

if TYPE_CHECKING:
    from llmfw.testing.batches import preference_batch as preference_batch
    from llmfw.testing.batches import scored_batch as scored_batch
    from llmfw.testing.batches import text_batch as text_batch
    from llmfw.testing.check import Outcome as Outcome
    from llmfw.testing.check import check_plugin as check_plugin
    from llmfw.testing.check import parametrize_with_checks as parametrize_with_checks
    from llmfw.testing.distributions import installed as installed
    from llmfw.testing.distributions import write_plugin as write_plugin
    from llmfw.testing.models import tiny_model as tiny_model
    from llmfw.testing.runner import CliResult as CliResult
    from llmfw.testing.runner import Runner as Runner
    from llmfw.testing.store import Store as Store
    from llmfw.testing.subject import plugin_module as plugin_module

_HOME = {
    "batches": ("preference_batch", "scored_batch", "text_batch"),
    "check": ("Outcome", "check_plugin", "parametrize_with_checks"),
    "distributions": ("installed", "write_plugin"),
    "models": ("tiny_model",),
    "runner": ("CliResult", "Runner"),
    "store": ("Store",),
    "subject": ("plugin_module",),
}

__all__ = sorted(name for names in _HOME.values() for name in names)

__getattr__, __dir__ = door(__name__, _HOME)
