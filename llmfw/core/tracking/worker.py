"""The process that tells MLflow of a run while it goes on: the only one that imports MLflow.

A process and not a thread: MLflow's Python code would take the interpreter's lock from the training, while
it's imported and whenever many values are sent; and forked loader workers would inherit half-done imports.

It reads json lines on standard input (first the task, at last ``{"finish": STATUS}``) and writes json lines
on standard output (``{"failure": WHY}``, ``{"failure": null}`` once that has passed). The end of the input
means that the run's process is gone.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

from llmfw.core.errors import BusyError, LlmfwError
from llmfw.core.tracking.files import unlock
from llmfw.core.tracking.record import Status, read_record, reap
from llmfw.core.tracking.remote import prepare
from llmfw.core.tracking.replay import bury
from llmfw.core.tracking.sender import LOCKED, Sender, own_sync, reason

SLOWEST = 60.0
"""Longest pause between attempts, seconds."""
_DYING = 10.0
"""Seconds until a killed process has let go of its run's lock; its end of our input may be gone before."""


class Worker:
    """Sends at every turn what is new; fails, waits longer, and tries again."""

    def __init__(self, task: dict[str, Any]) -> None:
        self._folder = Path(task["folder"])
        self._uri: str = task["uri"]
        self._experiment: str = task["experiment"]
        self._tags: dict[str, str] = task["tags"]
        self._interval: float = task["interval"]
        self._parent: int = task["pid"]
        self._wait = self._interval
        self._sender: Sender | None = None
        self._lock = -1
        self._failure: str | None = None
        self._buried = False
        self._input = b""

    def work(self) -> None:
        """Until the run has finished, or its process is gone."""
        while (status := self._turn()) is None:
            pass
        # an earlier process of this run may still be sending; the run kills us when it has waited enough
        end = time.monotonic() + SLOWEST
        while self._attempt(status) and time.monotonic() < end:
            time.sleep(0.1)
        if self._lock >= 0:
            unlock(self._lock)

    def _turn(self) -> Status | None:
        """One attempt and one pause; the status with which the run has ended, once it has."""
        self._attempt(None)
        ready, _, _ = select.select([sys.stdin], [], [], self._wait)
        if ready:
            raw = os.read(sys.stdin.fileno(), 65536)
            self._input += raw
            if b"\n" in self._input:
                finished: Status = json.loads(self._input)["finish"]
                return finished
            if not raw:
                return self._orphaned()
        return self._orphaned() if os.getppid() != self._parent else None

    def _orphaned(self) -> Status:
        """The run's process is gone: its status is on record, it was killed, or another has taken over."""
        end = time.monotonic() + _DYING
        while (status := reap(read_record(self._folder)).status) == "RUNNING":
            if time.monotonic() > end:
                raise SystemExit(0)
            time.sleep(0.1)
        return status

    def _attempt(self, last: Status | None) -> bool:
        """Send what is new; whether to try again soon, because another process is just at it."""
        try:
            self._send(last)
        except BusyError:
            return True
        except Exception as error:
            # what arrived isn't known now; connecting again finds out
            self._sender = None
            self._wait = min(max(1.0, 2 * self._wait), SLOWEST)
            why = reason(error)
            self._say(why)
            return why == LOCKED
        self._wait = self._interval
        self._say(None)
        return False

    def _send(self, last: Status | None) -> None:
        if self._lock < 0:
            self._lock = own_sync(self._folder)
        if self._sender is None:
            made = Sender(self._folder, self._uri, self._experiment, self._tags)
            made.reopen()
            made.connect(alive=True)
            self._sender = made
        self._sender.send()
        if last is not None:
            self._sender.end(last, None)
        self._sender.send_files()
        if not self._buried and last is None:
            self._buried = True
            bury(self._folder.parent, self._uri)

    def _say(self, failure: str | None) -> None:
        if failure != self._failure:
            self._failure = failure
            try:
                print(json.dumps({"failure": failure}), flush=True)
            except OSError:
                return  # nobody listens any more


def main(task: dict[str, Any]) -> None:
    """Entry of the process; ends well whatever MLflow does."""
    # Ctrl-C is the run's matter; it tells us when it has ended
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    prepare()
    try:
        Worker(task).work()
    except LlmfwError as error:
        print(json.dumps({"failure": str(error)}), flush=True)
