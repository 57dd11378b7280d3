"""Switches off every library's telemetry before it's imported."""

from __future__ import annotations

import os

_OPT_OUT = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def quiet_telemetry() -> None:
    """Set the opt-out variables; called by ``import llmfw``, before any other library is imported."""
    os.environ.update(_OPT_OUT)
