"""Tells MLflow what the journal says, beside the training. Training never waits for it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from llmfw.core.tracking.record import RUNS, Status, read_record, update_record
from llmfw.core.tracking.redaction import redact_text
from llmfw.core.tracking.remote import resolve_uri
from llmfw.core.tracking.replay import unsent

_log = logging.getLogger("llmfw.tracking")

# the sender finds the same modules as this process; the task holds the store's address, which may hold a
# password: not in argv
_BOOT = (
    "import json, sys; task = json.loads(sys.stdin.buffer.raw.readline()); sys.path[:] = task['path']; "
    "from llmfw.core.tracking.worker import main; main(task)"
)


class MlflowSync:
    """A process that tails the run's journal. ``start`` and ``finish`` are all that a run calls.

    Nothing is lost where MLflow is down, slow, frozen or locked, or the process dies: the journal keeps it,
    and ``llmfw sync`` sends it later.
    """

    def __init__(
        self,
        run_dir: str | Path,
        uri: str | None = None,
        experiment: str = "llmfw",
        *,
        runs: Path | None = None,
        tags: Mapping[str, str] | None = None,
        interval: float = 2.0,
    ) -> None:
        self._folder = Path(run_dir).absolute()
        self.uri = resolve_uri(uri, runs or RUNS)
        self._experiment, self._tags, self._interval = experiment, dict(tags or {}), interval
        self._process: subprocess.Popen[bytes] | None = None
        self._listener: threading.Thread | None = None
        self._failure: str | None = None
        self._finishing = False

    def start(self) -> None:
        """Begin; returns at once."""
        # a later `llmfw sync` must know where to, also if MLflow is never reached
        about = {"uri": redact_text(self.uri), "experiment": self._experiment}
        known = read_record(self._folder).mlflow
        if any(known.get(key) != value for key, value in about.items()):
            update_record(self._folder, mlflow=about)
        self._begin()

    def finish(self, status: Status, timeout: float = 10.0) -> int:
        """Send what is left and close the MLflow run; never takes longer than ``timeout`` seconds.

        Returns:
            How many values, files and so on MLflow hasn't got; a warning then names the command that sends
            them.
        """
        end = time.monotonic() + timeout
        self._finishing = True
        if self._process is not None and self._process.poll() is not None:
            self._begin()  # it died in the middle; what it left undone is done now
        if self._process is not None:
            self._tell(self._process, {"finish": status})
            try:
                self._process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._listener is not None:
            self._listener.join(1.0)
        self._sweep()
        left = unsent(self._folder, status)
        if left:
            _log.warning(
                "MLflow at %s has not got %d items of this run (%s); they are kept; send them with: "
                "llmfw sync %s",
                redact_text(self.uri),
                left,
                self._failure or "it did not answer in time",
                self._folder,
            )
        return left

    def _begin(self) -> None:
        task = {
            "path": sys.path,
            "pid": os.getpid(),
            "folder": str(self._folder),
            "uri": self.uri,
            "experiment": self._experiment,
            "tags": self._tags,
            "interval": self._interval,
        }
        try:
            with self._log_path.open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-W", "ignore", "-c", _BOOT],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                )
        except OSError as error:
            self._note(f"its process can't be started: {error.strerror}")
            return
        self._tell(self._process, task, close=False)
        assert self._process.stdout is not None
        self._listener = threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True)
        self._listener.start()

    @property
    def _log_path(self) -> Path:
        return self._folder / "mlflow.log"

    def _sweep(self) -> None:
        """A log that says nothing isn't kept."""
        with suppress(OSError):
            if self._log_path.stat().st_size == 0:
                self._log_path.unlink()

    @staticmethod
    def _tell(process: subprocess.Popen[bytes], message: dict[str, Any], *, close: bool = True) -> None:
        assert process.stdin is not None
        with suppress(OSError, ValueError):  # it has died; finish sees that
            process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()
            if close:
                process.stdin.close()

    def _listen(self, lines: IO[bytes]) -> None:
        """Runs in a thread of its own, which sleeps until the process says something."""
        with lines:
            for line in lines:
                with suppress(ValueError, KeyError, TypeError):
                    self._note(json.loads(line)["failure"])

    def _note(self, failure: str | None) -> None:
        if failure is not None and self._failure is None and not self._finishing:
            _log.warning(
                "MLflow at %s can't be told (%s); the run goes on, its journal keeps every value",
                redact_text(self.uri),
                failure,
            )
        self._failure = failure
