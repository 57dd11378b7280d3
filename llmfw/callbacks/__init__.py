"""Lightning callbacks and measurements that any run may use; a public door. Names are imported when first
used.

Callbacks keep their state in json or tensors, act at the ends of optimizer steps, and find the step's report
in ``outputs`` (see ``llmfw.core.module.TrainModule``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmfw.core.lazy import door

if TYPE_CHECKING:
    from llmfw.callbacks.early_stopping import EarlyStopping
    from llmfw.callbacks.intervals import mean_interval, share_interval
    from llmfw.callbacks.max_time import MaxTime
    from llmfw.callbacks.preference import answer_length, pair_metrics
    from llmfw.callbacks.progress import Progress
    from llmfw.callbacks.requeue import requeue
    from llmfw.callbacks.samples import Samples
    from llmfw.callbacks.signals import Signals, SignalWatch
    from llmfw.callbacks.spikes import Spikes
    from llmfw.callbacks.throughput import Throughput
    from llmfw.callbacks.validation import Validation

_HOME = {
    "early_stopping": ("EarlyStopping",),
    "intervals": (
        "mean_interval",
        "share_interval",
    ),
    "max_time": ("MaxTime",),
    "preference": (
        "answer_length",
        "pair_metrics",
    ),
    "progress": ("Progress",),
    "requeue": ("requeue",),
    "samples": ("Samples",),
    "signals": (
        "SignalWatch",
        "Signals",
    ),
    "spikes": ("Spikes",),
    "throughput": ("Throughput",),
    "validation": ("Validation",),
}

__all__ = [
    "EarlyStopping",
    "MaxTime",
    "Progress",
    "Samples",
    "SignalWatch",
    "Signals",
    "Spikes",
    "Throughput",
    "Validation",
    "answer_length",
    "mean_interval",
    "pair_metrics",
    "requeue",
    "share_interval",
]

__getattr__, __dir__ = door(__name__, _HOME)
