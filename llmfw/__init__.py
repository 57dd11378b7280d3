"""A workbench for methods that train and run language models: a small core, and every method a plugin.

Public names are loaded on first use, so that ``import llmfw`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from llmfw.core.telemetry import quiet_telemetry

if TYPE_CHECKING:  # "as" says that a name is public
    from llmfw.core.api import (
        EvaluateResult as EvaluateResult,
        FitResult as FitResult,
        GenerateResult as GenerateResult,
        evaluate as evaluate,
        fit as fit,
        generate as generate,
        plan as plan,
    )
    from llmfw.core.batch import Batch as Batch, LossOutput as LossOutput
    from llmfw.core.data import DataModule as DataModule
    from llmfw.core.errors import LlmfwError as LlmfwError
    from llmfw.core.hookspecs import hookimpl as hookimpl
    from llmfw.core.plugin import Plugin as Plugin
    from llmfw.core.records import (
        CacheFactory as CacheFactory,
        Command as Command,
        Completion as Completion,
        DatasetTransform as DatasetTransform,
        Decoder as Decoder,
        Estimate as Estimate,
        Evaluation as Evaluation,
        EvaluationResult as EvaluationResult,
        Loss as Loss,
        NamedMetric as NamedMetric,
        Policy as Policy,
        Report as Report,
        RolloutSampler as RolloutSampler,
        Round as Round,
        Row as Row,
        Service as Service,
        Surgery as Surgery,
        Transformed as Transformed,
    )

__version__ = "0.1.0"

_HOME = {
    "llmfw.core.api": (
        "fit", "generate", "evaluate", "plan", "FitResult", "GenerateResult", "EvaluateResult",
    ),
    "llmfw.core.batch": ("Batch", "LossOutput"),
    "llmfw.core.data": ("DataModule",),
    "llmfw.core.errors": ("LlmfwError",),
    "llmfw.core.hookspecs": ("hookimpl",),
    "llmfw.core.plugin": ("Plugin",),
    "llmfw.core.records": (
        "CacheFactory", "Command", "Completion", "DatasetTransform", "Decoder", "Estimate", "Evaluation",
        "EvaluationResult", "Loss", "NamedMetric", "Policy", "Report", "RolloutSampler", "Round", "Row",
        "Service", "Surgery", "Transformed",
    ),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [  # the table above is the list of public names
    "__version__", *sorted(_MODULE_OF),
]  # fmt: skip

quiet_telemetry()


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'llmfw' has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
