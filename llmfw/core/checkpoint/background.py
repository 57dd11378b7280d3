"""Work that makes a checkpoint durable beside the training: one at a time, and no failure is lost."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread


class Background:
    """A thread for each piece of work; the next one waits for the last. A process that is told twice to go
    doesn't wait for it.
    """

    def __init__(self) -> None:
        self._thread: Thread | None = None
        self._failure: BaseException | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Begin, once the work before has ended.

        Raises:
            BaseException: what the work before failed with.
        """
        self.wait()

        def run() -> None:
            try:
                work()
            except BaseException as error:
                self._failure = error

        self._thread = Thread(target=run, name="llmfw-checkpoint", daemon=True)
        self._thread.start()

    def failed(self) -> bool:
        """Whether what was begun last has failed by now; doesn't wait."""
        return self._failure is not None

    def wait(self) -> None:
        """Until nothing is under way, and raise what failed."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
