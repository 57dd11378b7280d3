"""A run whose MLflow server is frozen, killed and started again: afterwards every value is there, once.

    python -m tests.resume.outage --write     # into tests/resume/outcomes.json

Both are real: ``mlflow server`` over sqlite, and ``llmfw fit`` on the tiny model.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from llmfw.core.proof.tracked import one_mlflow_run
from llmfw.core.tracking import read_journal, read_record
from tests.core.tracking.support import free_port, serve, until
from tests.resume.outcomes import OUT, write
from tests.resume.trials import write_data

STEPS = 600


def outage(folder: Path) -> dict[str, Any]:
    """Train; freeze the server, thaw it, kill it, start another; tell what the store has in the end."""
    port = free_port()
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
    until(lambda: done() >= STEPS // 10, 300)
    frozen = done()
    os.killpg(server.pid, signal.SIGSTOP)
    until(lambda: done() >= 4 * STEPS // 10, 300)
    thawed = done()
    os.killpg(server.pid, signal.SIGCONT)
    until(lambda: done() >= 5 * STEPS // 10, 300)
    killed = done()
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()
    until(lambda: done() >= 7 * STEPS // 10, 300)
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
