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
    )
    from llmfw.core.api import (
        ExportResult as ExportResult,
    )
    from llmfw.core.api import (
        FitResult as FitResult,
    )
    from llmfw.core.api import (
        GenerateResult as GenerateResult,
    )
    from llmfw.core.api import (
        evaluate as evaluate,
    )
    from llmfw.core.api import (
        export as export,
    )
    from llmfw.core.api import (
        fit as fit,
    )
    from llmfw.core.api import (
        generate as generate,
    )
    from llmfw.core.api import (
        plan as plan,
    )
    from llmfw.core.api import (
        reproduce as reproduce,
    )
    from llmfw.core.batch import Batch as Batch
    from llmfw.core.batch import LossOutput as LossOutput
    from llmfw.core.claims import Arm as Arm
    from llmfw.core.claims import Claim as Claim
    from llmfw.core.claims import Workspace as Workspace
    from llmfw.core.data import DataModule as DataModule
    from llmfw.core.errors import LlmfwError as LlmfwError
    from llmfw.core.hookspecs import hookimpl as hookimpl
    from llmfw.core.plugin import Plugin as Plugin
    from llmfw.core.records import (
        CacheFactory as CacheFactory,
    )
    from llmfw.core.records import (
        CodeExecutor as CodeExecutor,
    )
    from llmfw.core.records import (
        Command as Command,
    )
    from llmfw.core.records import (
        Completion as Completion,
    )
    from llmfw.core.records import (
        DatasetTransform as DatasetTransform,
    )
    from llmfw.core.records import (
        Decoder as Decoder,
    )
    from llmfw.core.records import (
        Estimate as Estimate,
    )
    from llmfw.core.records import (
        Evaluation as Evaluation,
    )
    from llmfw.core.records import (
        EvaluationResult as EvaluationResult,
    )
    from llmfw.core.records import (
        Execution as Execution,
    )
    from llmfw.core.records import (
        ExecutionLimits as ExecutionLimits,
    )
    from llmfw.core.records import (
        Loss as Loss,
    )
    from llmfw.core.records import (
        NamedMetric as NamedMetric,
    )
    from llmfw.core.records import (
        Policy as Policy,
    )
    from llmfw.core.records import (
        Report as Report,
    )
    from llmfw.core.records import (
        Reward as Reward,
    )
    from llmfw.core.records import (
        RolloutSampler as RolloutSampler,
    )
    from llmfw.core.records import (
        Round as Round,
    )
    from llmfw.core.records import (
        Row as Row,
    )
    from llmfw.core.records import (
        Service as Service,
    )
    from llmfw.core.records import (
        Surgery as Surgery,
    )
    from llmfw.core.records import (
        Transformed as Transformed,
    )
    from llmfw.core.records import (
        Verdict as Verdict,
    )
    from llmfw.core.records import (
        Verifier as Verifier,
    )
    from llmfw.core.verifiers import VerdictReward as VerdictReward

__version__ = "0.1.0"

_HOME = {
    "llmfw.core.api": (
        "fit", "generate", "evaluate", "export", "plan", "FitResult", "GenerateResult", "EvaluateResult",
        "ExportResult", "reproduce",
    ),
    "llmfw.core.batch": ("Batch", "LossOutput"),
    "llmfw.core.claims": ("Arm", "Claim", "Workspace"),
    "llmfw.core.data": ("DataModule",),
    "llmfw.core.errors": ("LlmfwError",),
    "llmfw.core.hookspecs": ("hookimpl",),
    "llmfw.core.plugin": ("Plugin",),
    "llmfw.core.records": (
        "CacheFactory", "CodeExecutor", "Command", "Completion", "DatasetTransform", "Decoder", "Estimate",
        "Evaluation", "EvaluationResult", "Execution", "ExecutionLimits", "Loss", "NamedMetric", "Policy",
        "Report", "Reward", "RolloutSampler", "Round", "Row", "Service", "Surgery", "Transformed", "Verdict",
        "Verifier",
    ),
    "llmfw.core.verifiers": ("VerdictReward",),
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
