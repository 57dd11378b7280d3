"""A bounded pool: so many programs at once, so many waiting, and a clear no beyond that.

with Pool(Sandbox(), jobs=4, waiting=16) as pool:
    future = pool.submit(request)              # raises PoolFull where there's no room
    results = list(pool.map(requests))         # waits for room, keeps the order
    result = await pool.arun(request)          # the same for asyncio
    async for result in pool.amap(requests): ...
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from concurrent.futures import Future
from threading import Condition, Thread
from typing import Protocol

from llmfw import LlmfwError

from .records import Isolation, Request, Result


class PoolFull(LlmfwError):
    """No room for another request just now (exit code 6)."""

    exit_code = 6


class PoolClosed(LlmfwError):
    """The pool takes no more requests (exit code 6)."""

    exit_code = 6


class Runs(Protocol):
    """What runs requests: a sandbox, or something around one."""

    @property
    def isolation(self) -> Isolation:
        """What holds its programs."""

    @property
    def jobs(self) -> int:
        """Programs that it would run at once."""

    def run(self, request: Request, /) -> Result:
        """Run a request to its end."""


class Pool:
    """Runs requests on threads of its own; safe to use from several threads and event loops.

    Its threads don't keep a process alive: whoever needs the results waits for them, or calls ``drain``.

    Args:
        jobs: requests that run at once; None: as many as the sandbox would.
        waiting: requests that may wait besides; None: four for each job.
    """

    def __init__(self, sandbox: Runs, jobs: int | None = None, waiting: int | None = None) -> None:
        self.sandbox = sandbox
        self.jobs = jobs or sandbox.jobs
        self.waiting = 4 * self.jobs if waiting is None else waiting
        self.done: Counter[str] = Counter()
        """Requests that ended, by their verdict; ``error``: those that no sandbox could carry out."""
        self.seconds = 0.0
        """That they ran for, all together."""
        self._queue: deque[tuple[Request, Future[Result]]] = deque()
        self._changed = Condition()
        self._running = self._telling = 0
        self._threads = 0
        self._open = True
        self._hoping: deque[Future[None]] = deque()

    # What there is.

    @property
    def running(self) -> int:
        """Requests that run now."""
        return self._running

    @property
    def queued(self) -> int:
        """Requests that wait now."""
        return len(self._queue)

    @property
    def full(self) -> bool:
        """Whether ``submit`` would refuse."""
        return self._running + len(self._queue) >= self.jobs + self.waiting

    @property
    def is_open(self) -> bool:
        """Whether it takes requests."""
        return self._open

    # Giving work.

    def submit(self, request: Request) -> Future[Result]:
        """Queue a request. Cancelling the future takes it out again, as long as it waits.

        Raises:
            PoolFull: POOL-FULL, ``jobs`` run and ``waiting`` wait.
            PoolClosed: POOL-CLOSED, after ``drain`` or ``close``.
        """
        future: Future[Result] = Future()
        with self._changed:
            self._insist()
            if self.full:
                raise PoolFull(
                    "POOL-FULL", f"{self._running} requests run and {len(self._queue)} wait",
                    mend="try again later, or give it more jobs or more room to wait",
                )  # fmt: skip
            self._queue.append((request, future))
            if self._threads < min(self.jobs, self._running + len(self._queue)):
                self._threads += 1
                Thread(target=self._work, name=f"sandbox-{self._threads}", daemon=True).start()
            self._changed.notify_all()
        future.add_done_callback(self._left)
        return future

    def wait_for_room(self, timeout: float | None = None) -> bool:
        """Wait until ``submit`` would take a request. -> Whether it would.

        Raises:
            PoolClosed: as ``submit``.
        """
        with self._changed:
            found = self._changed.wait_for(lambda: not self.full or not self._open, timeout)
            self._insist()
            return found

    def map(self, requests: Iterable[Request]) -> Iterator[Result]:
        """Results in the requests' order; requests are taken as there is room."""
        flying: deque[Future[Result]] = deque()
        try:
            for request in requests:
                if len(flying) >= self.jobs + self.waiting:  # results of the quick don't pile up
                    yield flying.popleft().result()
                while (future := self._try(request)) is None:
                    self.wait_for_room(0.5)
                flying.append(future)
                while flying and flying[0].done():
                    yield flying.popleft().result()
            while flying:
                yield flying.popleft().result()
        finally:
            for one in flying:
                one.cancel()

    # Giving work from an event loop.

    async def arun(self, request: Request) -> Result:
        """Run a request; waits for room where there is none."""
        return await asyncio.wrap_future(await self._asubmit(request))

    async def amap(
        self, requests: Iterable[Request] | AsyncIterable[Request], *, ordered: bool = True
    ) -> AsyncIterator[Result]:
        """Results as they come, in the requests' order unless ``ordered`` is False; requests are taken as
        there is room, and never more of them than run and wait at once.
        """
        flying: deque[asyncio.Future[Result]] = deque()
        try:
            async for request in _each(requests):
                while len(flying) >= self.jobs + self.waiting:
                    yield (await _next(flying, ordered))
                flying.append(asyncio.wrap_future(await self._asubmit(request)))
                while flying and any(one.done() for one in ([flying[0]] if ordered else flying)):
                    yield (await _next(flying, ordered))
            while flying:
                yield (await _next(flying, ordered))
        finally:
            for one in flying:
                one.cancel()

    async def _asubmit(self, request: Request) -> Future[Result]:
        while (future := self._try(request)) is None:
            hope: Future[None] = Future()
            with self._changed:
                if not self.full or not self._open:
                    continue
                self._hoping.append(hope)
            try:
                await asyncio.wrap_future(hope)
            except asyncio.CancelledError:
                if not hope.cancelled():
                    self._wake()  # its turn goes to another one
                raise
        return future

    def _try(self, request: Request) -> Future[Result] | None:
        try:
            return self.submit(request)
        except PoolFull:
            return None

    # Ending.

    def drain(self, timeout: float | None = None) -> bool:
        """Take no more requests and wait for those that are here. -> Whether all of them ended in time; those
        that still waited are cancelled then, those that run are left to their limits.
        """
        until = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            self._open = False
            self._changed.notify_all()
            left = None if until is None else max(0.0, until - time.monotonic())
            ended = self._changed.wait_for(lambda: not (self._running or self._telling or self._queue), left)
        self._wake(everybody=True)
        if not ended:
            self.close()
        return ended

    def close(self) -> None:
        """Take no more requests and cancel those that wait."""
        with self._changed:
            self._open = False
            waiting = list(self._queue)
            self._queue.clear()
            self._changed.notify_all()
        for _, future in waiting:
            future.cancel()
        self._wake(everybody=True)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.drain()
        else:
            self.close()

    # Inside.

    def _insist(self) -> None:
        if not self._open:
            raise PoolClosed("POOL-CLOSED", "the pool is being closed", mend="open another one")

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or not self._open)
                if not self._queue:
                    self._threads -= 1
                    return
                request, future = self._queue.popleft()
                if not future.set_running_or_notify_cancel():
                    continue
                self._running += 1
            self._carry_out(request, future)
            self._wake()

    def _carry_out(self, request: Request, future: Future[Result]) -> None:
        begun, result, failure = time.monotonic(), None, None
        try:
            result = self.sandbox.run(request)
        except BaseException as error:
            failure = error
        with self._changed:
            self._running -= 1
            self._telling += 1
            self.done["error" if result is None else result.verdict] += 1
            self.seconds += time.monotonic() - begun
            self._changed.notify_all()
        if result is not None:
            future.set_result(result)
        else:
            future.set_exception(failure)
        with self._changed:  # what is drained has told its results
            self._telling -= 1
            self._changed.notify_all()

    def _left(self, future: Future[Result]) -> None:
        """A future that was cancelled makes room."""
        if not future.cancelled():
            return
        with self._changed:
            self._queue = deque(one for one in self._queue if one[1] is not future)
            self._changed.notify_all()
        self._wake()

    def _wake(self, *, everybody: bool = False) -> None:
        """Let the one who has hoped longest for room try again."""
        while True:
            with self._changed:
                if not self._hoping:
                    return
                hope = self._hoping.popleft()
            if hope.set_running_or_notify_cancel():
                hope.set_result(None)
                if not everybody:
                    return


async def _each(requests: Iterable[Request] | AsyncIterable[Request]) -> AsyncIterator[Request]:
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            yield request
    else:
        for request in requests:
            yield request


async def _next(flying: deque[asyncio.Future[Result]], ordered: bool) -> Result:
    """The next result, taken out."""
    if ordered:
        return await flying.popleft()
    done, _ = await asyncio.wait(flying, return_when=asyncio.FIRST_COMPLETED)
    first = next(one for one in flying if one in done)
    flying.remove(first)
    return await first
