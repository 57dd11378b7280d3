"""What every test relies on: no hub, no telemetry, one thread a worker, a browser for those who ask."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from pathlib import Path

import pytest

# before anything imports torch or transformers
for _name, _value in {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}.items():
    os.environ.setdefault(_name, _value)
for _name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
    os.environ.pop(_name, None)

pytest_plugins = ["llmfw.testing.fixtures"]

# begun in the background of a shell, tests and what they start would ignore Ctrl-C, which some of them press
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def chromium() -> Path:
    """A browser for tests marked ``browser``. Where CI has none that is a failure, elsewhere a skip that says
    so.
    """
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        reason = "no chromium here; scripts/test.sh installs one where it may"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    return Path(found)
