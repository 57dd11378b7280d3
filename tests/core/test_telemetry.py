"""Nothing is sent anywhere unasked: an audit hook sees, and refuses, every address that a process looks up or
calls.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmfw.core.telemetry import OPT_OUT, quiet_telemetry

WATCH = """
import json, os, socket, sys, time
def hook(event, given):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo",
    "socket.gethostbyname"):
        place = given[0] if event.startswith("socket.get") else given[1]
        if isinstance(place, str) and event == "socket.connect":
            return                                  # a unix socket
        with open(os.environ["ATTEMPTS"], "a") as file:
            file.write(json.dumps([event, str(place)]) + "\\n")
        raise OSError("refused by the test")
sys.addaudithook(hook)
"""
RUN = """
import llmfw
import importlib
for name in ("torch", "lightning.pytorch", "torchmetrics", "transformers", "peft", "tokenizers",
"huggingface_hub", "mlflow",
             "pyarrow", "plotly.offline", "bitsandbytes", "gguf", "omegaconf", "safetensors.torch"):
    try:
        importlib.import_module(name)
    except ImportError:
        assert name in ("bitsandbytes", "gguf")
from pathlib import Path
from llmfw.core.tracking import JournalLogger, MlflowSync, open_run
run = open_run(name="quiet", runs=Path(sys.argv[1]), config={"seed": 1})
JournalLogger(run.journal).log_metrics({"loss": 1.0}, 1)
sync = MlflowSync(run.dir, interval=0.1, runs=Path(sys.argv[1]))
sync.start()
run.close("FINISHED")
assert sync.finish("FINISHED", timeout=120) == 0
time.sleep(1)                                       # threads that send a little later
"""
CONTROL = """
import mlflow
from mlflow.tracking import MlflowClient
client = MlflowClient(tracking_uri=f"sqlite:///{sys.argv[1]}/control.db")
client.create_run(client.create_experiment("x"))
end = time.monotonic() + 20
while not os.path.exists(os.environ["ATTEMPTS"]) and time.monotonic() < end:
    time.sleep(0.1)
"""


def watched(script: str, folder: Path) -> list[list[str]]:
    """What a fresh process and its children tried to reach; none is told that it's a test, for libraries are
    quiet then.
    """
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(WATCH)
    hints = {"CI", "GITHUB_ACTIONS", "PYTEST_CURRENT_TEST", "PYTEST_VERSION", "MLFLOW_TRACKING_URI", *OPT_OUT}
    environment = {name: value for name, value in os.environ.items() if name not in hints}
    path = os.pathsep.join(filter(None, (str(folder / "site"), os.environ.get("PYTHONPATH"))))
    environment |= {"PYTHONPATH": path, "ATTEMPTS": str(folder / "attempts")}
    done = subprocess.run(
        [sys.executable, "-c", "import os, sys, time\n" + script, str(folder)],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    if not (folder / "attempts").exists():
        return []
    return [json.loads(line) for line in (folder / "attempts").read_text().splitlines()]


@pytest.mark.slow
def test_importing_everything_and_tracking_a_run_reaches_for_no_address(tmp_path: Path) -> None:
    assert watched(RUN, tmp_path) == []


def test_the_same_watch_sees_mlflow_reach_out_where_llmfw_was_not_imported(tmp_path: Path) -> None:
    """The control: were nothing switched off, the test above would fail."""
    reached = watched(CONTROL, tmp_path)
    assert any("mlflow" in place for _, place in reached), reached


def test_a_variable_that_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OPT_OUT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DISABLE_SAFETENSORS_CONVERSION", "0")
    quiet_telemetry()
    assert os.environ["DISABLE_SAFETENSORS_CONVERSION"] == "0"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_libraries_take_our_word_for_no() -> None:
    """Each library's own reading of the variables, where it's installed."""
    script = (
        "import llmfw\n"
        "from mlflow.telemetry.utils import is_telemetry_disabled\n"
        "from huggingface_hub import constants\n"
        "assert is_telemetry_disabled()\n"
        "assert constants.HF_HUB_DISABLE_TELEMETRY and constants.HF_HUB_DISABLE_UPDATE_CHECK\n"
        "from transformers.utils.generic import strtobool\n"
        "import os\n"
        "assert strtobool(os.environ['DISABLE_SAFETENSORS_CONVERSION'])\n"
    )
    hints = {"CI", "GITHUB_ACTIONS", "PYTEST_CURRENT_TEST"}
    environment = {name: value for name, value in os.environ.items() if name not in hints}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
