"""Switches off what libraries send unasked, before they're imported.

Each name was looked up in the library's own source (mlflow 3.17, huggingface_hub 2.4, transformers 5.23,
datasets 5.2) or its documentation (ray, wandb, gradio, vllm: not among our requirements, but plugins may
bring them).
"""

from __future__ import annotations

import os

OPT_OUT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # mlflow compares with "true", huggingface_hub and wandb take any spelling of yes
    "DO_NOT_TRACK": "true",
    # the tracking client prints advice on standard error when it thinks that a program drives it
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    # datasets counts downloads by a request of its own
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    # transformers asks a service to convert a model without safetensors, in a thread, behind from_pretrained
    "DISABLE_SAFETENSORS_CONVERSION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "WANDB_ERROR_REPORTING": "false",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "VLLM_NO_USAGE_STATS": "1",
}


def quiet_telemetry() -> None:
    """Set the opt-out variables; called by ``import llmfw``, before any other library is imported.

    A variable that the user has set stays as it is: who asks for telemetry by name gets it.
    """
    for name, value in OPT_OUT.items():
        os.environ.setdefault(name, value)
