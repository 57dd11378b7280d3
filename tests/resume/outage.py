"""A run whose MLflow server is frozen, killed and started again: afterwards every value is there, once.

    python -m tests.resume.outage --write     # into docs/tested/resume.json

Both are real: ``mlflow server`` over sqlite, and ``llmfw fit`` on the tiny model.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from llmfw.core.proof.tracked import one_mlflow_run
from llmfw.core.tracking import read_journal, read_record
from tests.resume.outcomes import OUT, write
from tests.resume.trials import write_data

STEPS = 600


def serve(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """A server that answers."""
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
        *("--artifacts-destination", str(folder / "artifacts")),
    ]
    log = (folder / "server.log").open("ab")
    process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    _until(lambda: _answers(port), 120)
    return process


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _until(true: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.05)


def outage(folder: Path) -> dict[str, Any]:
    """Train; freeze the server, thaw it, kill it, start another; tell what the store has in the end."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    files = write_data(folder / "data")
    server = serve(folder, port)
    run = folder / "run"
    words = [
        *(
            f"data={files['answers']}",
            "model=tiny-llama",
            "trainer.micro_batch=2",
            f"trainer.max_steps={STEPS}",
        ),
        *("checkpoint.every=100", f"run.dir={run}", f"tracking.uri=http://127.0.0.1:{port}"),
        *("trainer.progress=false", "generation.max_new_tokens=4"),
    ]
    log = (folder / "fit.log").open("ab")
    training = subprocess.Popen([sys.executable, "-m", "llmfw", "fit", *words], stdout=log, stderr=log)
    done = _steps(run)
    _until(lambda: done() >= STEPS // 10, 300)
    frozen = done()
    os.killpg(server.pid, signal.SIGSTOP)
    _until(lambda: done() >= 4 * STEPS // 10, 300)
    thawed = done()
    os.killpg(server.pid, signal.SIGCONT)
    _until(lambda: done() >= 5 * STEPS // 10, 300)
    killed = done()
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()
    _until(lambda: done() >= 7 * STEPS // 10, 300)
    restarted = done()
    server = serve(folder, port)
    code = training.wait(600)
    synced = subprocess.run(
        [sys.executable, "-m", "llmfw", "sync", str(run)], capture_output=True, text=True, check=False
    )
    os.killpg(server.pid, signal.SIGTERM)
    server.wait(60)
    found = one_mlflow_run(folder / "mlflow.db", read_record(run))
    steps = [event.wall for event in read_journal(run / "journal.jsonl").of("consumed")]
    return {
        "steps": STEPS,
        "frozen, thawed, killed, started again after steps": [frozen, thawed, killed, restarted],
        "exit code of the run": code,
        "llmfw sync afterwards": synced.stdout.strip().rpartition(": ")[2] or synced.stderr.strip(),
        "longest pause between two steps, seconds": round(
            max(after - before for before, after in pairwise(steps)), 3
        ),
        "MLflow": found.said,
        "held": found.held and code == 0,
    }


def _steps(run: Path) -> Callable[[], int]:
    journal = run / "journal.jsonl"
    return lambda: journal.read_bytes().count(b'\n{"t":"consumed"') if journal.exists() else 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help=f"write the outcome into {OUT.name}")
    asked = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="llmfw-outage-") as place:
        found = outage(Path(place))
    for name, value in found.items():
        print(f"{name}: {value}")
    if asked.write:
        write("outage", found)
    return 0 if found["held"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
