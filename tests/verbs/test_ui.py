"""``llmfw ui``: MLflow's pages, on this machine only, gone with Ctrl-C."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from llmfw.cli import run
from llmfw.core.errors import UsageError
from llmfw.core.tracking import sync_run
from llmfw.verbs.ui import free_port, is_loopback
from tests.core.tracking.making import make_run


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Path("runs")


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("example.org", False),
    ],
)
def test_only_loopback_addresses_are_this_machines_alone(host: str, own: bool) -> None:
    assert is_loopback(host) is own


def test_an_address_that_others_reach_is_refused_unless_it_is_meant(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["ui", "--host", "0.0.0.0"]) == 2
    assert "--allow-remote" in capsys.readouterr().err
    # with it, the next check speaks: there is no store
    assert run(["ui", "--host", "0.0.0.0", "--allow-remote"]) == 2
    assert "no run has been tracked" in capsys.readouterr().err


def test_a_taken_port_is_told_if_it_was_asked_for_and_passed_over_if_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match="taken"):
            free_port("127.0.0.1", port, fixed=True)
        assert free_port("127.0.0.1", port, fixed=False) > port


def test_a_server_of_ones_own_is_named_not_started(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ui", "--uri", "http://me:pass-word@127.0.0.1:9"]) == 0
    out = capsys.readouterr().out
    assert "http://***@127.0.0.1:9" in out


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_pages_show_the_runs_and_end_with_a_signal(runs: Path, number: int) -> None:
    sync_run(make_run(runs, "seen").dir)
    script = "from llmfw.cli import main; main()"
    process = subprocess.Popen([sys.executable, "-c", script, "ui"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("MLflow: http://127.0.0.1:"), line
    url = line.split()[1]
    asked = urllib.request.Request(
        f"{url}/api/2.0/mlflow/runs/search",
        data=json.dumps({"experiment_ids": ["1"]}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(asked, timeout=60) as answer:
        assert "seen" in answer.read().decode()
    process.send_signal(number)
    assert process.wait(120) == 0
    host, port = url.removeprefix("http://").split(":")
    with pytest.raises(ConnectionRefusedError), socket.create_connection((host, int(port)), timeout=2):
        pass
    assert "stopped" in process.stdout.read()
