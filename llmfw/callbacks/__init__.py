"""Lightning callbacks and measurements that any run may use; a public door. Names are imported when first
used.

Callbacks keep their state in json or tensors, act at the ends of optimizer steps, and find the step's report
in ``outputs`` (see ``llmfw.core.module.TrainModule``).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmfw.callbacks.early_stopping import EarlyStopping
    from llmfw.callbacks.intervals import mean_interval, share_interval
    from llmfw.callbacks.max_time import MaxTime
    from llmfw.callbacks.preference import answer_length, pair_metrics
    from llmfw.callbacks.progress import Progress
    from llmfw.callbacks.samples import Samples
    from llmfw.callbacks.signals import Signals, SignalWatch
    from llmfw.callbacks.throughput import Throughput
    from llmfw.callbacks.validation import Validation

_HOME = {
    "EarlyStopping": "early_stopping",
    "MaxTime": "max_time",
    "Progress": "progress",
    "Samples": "samples",
    "SignalWatch": "signals",
    "Signals": "signals",
    "Throughput": "throughput",
    "Validation": "validation",
    "answer_length": "preference",
    "mean_interval": "intervals",
    "pair_metrics": "preference",
    "share_interval": "intervals",
}

__all__ = [
    "EarlyStopping",
    "MaxTime",
    "Progress",
    "Samples",
    "SignalWatch",
    "Signals",
    "Throughput",
    "Validation",
    "answer_length",
    "mean_interval",
    "pair_metrics",
    "share_interval",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
