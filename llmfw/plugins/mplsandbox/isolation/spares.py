"""The next job's sandbox, started while this one's program runs: its start takes as long as a short program.

A spare knows nothing of the job that it will get, takes one, and is gone like any other. Where all processors
are busy with jobs none is started, since it would only take their time.
"""

from __future__ import annotations

import atexit
import math
import os
import time
from contextlib import suppress
from threading import Condition, Thread

from .job import Job, Outcome
from .standing import Standing, Wall

_KEPT = 2
"""Spares at once: programs that are compiled take turns with their compilers, which may write more."""
IDLE = 2.0
"""Seconds that a spare waits for a job."""
_START = 5.0
"""Seconds that its start may take."""


class Spares:
    """Runs the jobs of a wall, with a spare ready for the next one; safe to use from several threads.

    A sandbox dies with the thread that started it, so one thread of its own starts all spares, and lasts.
    """

    def __init__(self, wall: Wall) -> None:
        self._wall = wall
        self._forget()
        os.register_at_fork(after_in_child=self._forget_parents)
        atexit.register(self.close)

    def _forget(self) -> None:
        self._changed = Condition()
        self._ready: dict[int, tuple[Standing, float]] = {}
        self._wanted: int | None = None
        self._starting = False
        self._running = 0
        self._thread: Thread | None = None

    def _forget_parents(self) -> None:
        for standing, _ in self._ready.values():
            standing.forget()
        self._forget()

    def run(self, job: Job) -> Outcome:
        """Run a job in a sandbox of its own."""
        with self._changed:
            self._running += 1
        try:
            standing = None if job.channels else self._take(job.disk)
            if standing is None:
                standing = Standing(self._wall, job.disk, job.channels)
            return standing.carry_out(job, lambda: self._want(job.disk))
        finally:
            with self._changed:
                self._running -= 1

    def close(self) -> None:
        """End those that wait, and those that are being started; others come with further jobs."""
        with self._changed:
            self._wanted = None
            self._changed.wait_for(lambda: not self._starting, _START)
        self._drop(math.inf)

    def _take(self, disk: int) -> Standing | None:
        with self._changed:
            standing, _ = self._ready.pop(disk, (None, 0.0))
        if standing is not None and not standing.alive:
            standing.close()
            return None
        return standing

    def _want(self, disk: int) -> None:
        """Have a spare started, where a processor is free for it."""
        with self._changed:
            if disk in self._ready or self._running >= len(os.sched_getaffinity(0)):
                return
            self._wanted = disk
            if self._thread is None:
                self._thread = Thread(target=self._keep, name="sandbox-spares", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def _keep(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted is not None, IDLE if self._ready else None)
                disk, self._wanted = self._wanted, None
                self._starting = disk is not None
            self._drop(time.monotonic() - IDLE)
            if disk is None:
                continue
            with self._changed:
                newest = sorted(since for _, since in self._ready.values())[1 - _KEPT :]
            self._drop(min(newest, default=math.inf))
            standing = None
            with suppress(OSError):  # the job that wants it starts its own, and says what is wrong
                standing = Standing(self._wall, disk)
            with self._changed:
                self._starting = False
                if standing is not None:
                    self._ready[disk] = (standing, time.monotonic())
                self._changed.notify_all()

    def _drop(self, before: float) -> None:
        """End the spares started before a time."""
        with self._changed:
            chosen = [disk for disk, (_, since) in self._ready.items() if since < before]
            dropped = [self._ready.pop(disk)[0] for disk in chosen]
        for standing in dropped:
            standing.close()
