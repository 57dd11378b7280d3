"""Servers that fail, and what a run sends to them."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llmfw.core.tracking import (
    Journal,
)

Stored = dict[str, list[tuple[int, float]]]


def client(uri: str):  # mlflow has no types
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


def mlflow_runs(uri: str) -> list:
    known = client(uri)
    return known.search_runs([item.experiment_id for item in known.search_experiments()])


def values(uri: str, run_id: str) -> Stored:
    """Every stored row of a run, duplicates included."""
    known = client(uri)
    return {
        key: sorted((point.step, point.value) for point in known.get_metric_history(run_id, key))
        for key in known.get_run(run_id).data.metrics
    }


@contextmanager
def frozen_server() -> Iterator[str]:
    """Accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    held.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.close()
        for connection in held:
            connection.close()


def closed_port() -> str:
    return f"http://127.0.0.1:{free_port()}"


def train(journal: Journal, steps: range) -> float:
    """Write a step at a time; the longest wait in seconds."""
    worst = 0.0
    for step in steps:
        begun = time.monotonic()
        journal.metrics(step, {"loss": 1 / step, "rewards/margins": step / 7})
        worst = max(worst, time.monotonic() - begun)
    return worst


def expected(steps: range) -> Stored:
    return {
        "loss": [(step, 1 / step) for step in steps],
        "rewards/margins": [(step, step / 7) for step in steps],
    }


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def serve(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """A real ``mlflow server`` over ``folder/mlflow.db`` that answers; in a process group of its own."""
    command = [
        *(
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--workers",
            "1",
        ),
        *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
        *("--artifacts-destination", str(folder / "mlartifacts")),
    ]
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    until(lambda: _answers(port), seconds=120)
    return process


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def until(true, seconds: float = 60) -> None:
    """Wait for something that will happen; the bound only ends a test that failed."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)
