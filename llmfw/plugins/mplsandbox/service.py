"""``llmfw sandbox serve``: the sandbox over HTTP, for this machine or for those who have the token."""

from __future__ import annotations

import logging
import math
import select
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import asdict
from http.server import ThreadingHTTPServer
from threading import Condition, Thread
from time import monotonic
from typing import Any

from llmfw import LlmfwError

from .cache import Cached
from .executor import VERSION
from .gate import Gate, Refused, ServiceError, is_loopback
from .handler import Handler
from .openapi import document
from .pool import Pool, PoolClosed, PoolFull, Runs
from .records import VERDICTS, Request, Result
from .toolchains import language_rows
from .wire import BOUNDS, Bounds, request_of, told

_log = logging.getLogger(__name__)
_BESIDE = 32
"""Connections besides those whose programs run or wait."""
_LOOK = 0.5
"""Seconds between two looks whether a client is there still."""


class Service:
    """A sandbox behind a port.

    Args:
        host: an address or name; a token is needed where others can reach it.
        port: 0: a free one.
        jobs, waiting: as for ``Pool``; beyond them requests are refused with status 429.
        bounds: what a request may hold and ask for.

    Raises:
        ServiceError: TOKEN, HOST or PORT.
    """

    def __init__(
        self,
        sandbox: Runs,
        *,
        host: str = "127.0.0.1",
        port: int = 8020,
        jobs: int | None = None,
        waiting: int | None = None,
        token: str = "",
        bounds: Bounds = BOUNDS,
    ) -> None:
        family, address = _resolved(host, port)
        self.gate = Gate(is_loopback(address[0]), token)
        self.bounds, self.pool = bounds, Pool(sandbox, jobs, waiting)
        self.answered: Counter[tuple[str, int]] = Counter()
        self._since = monotonic()
        self._busy, self._changed = 0, Condition()
        self._server = _Server(self, family, address, self.pool.jobs + self.pool.waiting + _BESIDE)
        self._thread = Thread(target=self._server.serve_forever, args=(0.1,), name="service", daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self._server.server_address[:2]
        return f"http://[{host!s}]:{port}" if ":" in str(host) else f"http://{host!s}:{port}"

    def start(self) -> None:
        """Answer from now on, on threads of its own."""
        self._thread.start()

    def stop(self, grace: float) -> bool:
        """Take no more connections and requests, and let those that run or wait end. -> Whether all of them
        did within ``grace`` seconds; the others are left alone.
        """
        until = monotonic() + grace
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()
        ended = self.pool.drain(grace)
        with self._changed:  # their answers go out
            left = max(1.0, until - monotonic())
            return self._changed.wait_for(lambda: not self._busy, left) and ended

    # What the routes do.

    def run(self, row: Any, client: socket.socket) -> dict[str, Any]:
        """Run one request.

        Raises:
            Refused: 400, 429 or 503.
            ConnectionError: the client is gone.
        """
        try:
            future = self.submit(request_of(row, bounds=self.bounds))
            self._await([future], client)
            return told(future.result())
        except CancelledError:
            raise self.stopping() from None
        except LlmfwError as error:
            raise _bad(error) from error

    def batch(self, rows: Any, client: socket.socket) -> Iterator[dict[str, Any]]:
        """Run many requests. Results come as they end, with their requests' places; a request that can't be
        carried out gives an error. The first of them is queued, or refused, before anything is said.

        Raises:
            Refused: 400, 429 or 503.
            ConnectionError: the client is gone.
        """
        if not isinstance(rows, list) or len(rows) > self.bounds.cases:
            what = f"a list of at most {self.bounds.cases} requests is expected"
            raise Refused(400, "REQUEST", what, "send several lists")
        asked: list[Request | LlmfwError] = []
        for row in rows:
            try:
                asked.append(request_of(row, bounds=self.bounds))
            except LlmfwError as error:
                asked.append(error)
        first = next((at for at, one in enumerate(asked) if isinstance(one, Request)), None)
        begun: dict[Future[Result], int] = {}
        if first is not None and isinstance(one := asked[first], Request):
            begun[self.submit(one)] = first
        return self._batch(asked, begun, client)

    def _batch(
        self, asked: list[Request | LlmfwError], flying: dict[Future[Result], int], client: socket.socket
    ) -> Iterator[dict[str, Any]]:
        begun = set(flying.values())
        try:
            for at, one in enumerate(asked):
                if isinstance(one, LlmfwError):
                    yield {"index": at, "id": "", **_told(_bad(one))}
                elif at not in begun:
                    while len(flying) >= self.pool.jobs or (future := self._try(one, flying)) is None:
                        yield from self._ended(asked, flying, client)
                    flying[future] = at
            while flying:
                yield from self._ended(asked, flying, client)
        except PoolClosed:
            for future in flying:
                future.cancel()
        finally:
            for future in flying:
                future.cancel()

    def _try(self, request: Request, flying: dict[Future[Result], int]) -> Future[Result] | None:
        """Queue a request of a list; None: wait for one of the list, or a moment."""
        try:
            return self.pool.submit(request)
        except PoolFull:
            if not flying:
                self.pool.wait_for_room(_LOOK)
            return None

    def _ended(
        self, asked: list[Request | LlmfwError], flying: dict[Future[Result], int], client: socket.socket
    ) -> Iterator[dict[str, Any]]:
        if not flying:
            _insist(client)
            return
        for future in self._await(list(flying), client):
            at = flying.pop(future)
            request = asked[at]
            place = {"index": at, "id": request.id if isinstance(request, Request) else ""}
            try:
                yield {**place, **told(future.result())}
            except CancelledError:
                yield {**place, **_told(self.stopping())}
            except LlmfwError as error:
                yield {**place, **_told(_bad(error))}
            except Exception:
                _log.exception("a request failed")
                yield {**place, **_told(Refused(500, "BUG", "this is the service's fault", "see its log"))}

    def _await(self, futures: list[Future[Result]], client: socket.socket) -> list[Future[Result]]:
        """Those that have ended, at least one. A client that goes takes what waits with it; what runs is left
        to its limits.
        """
        while not (ended := wait(futures, _LOOK, FIRST_COMPLETED).done):
            try:
                _insist(client)
            except ConnectionError:
                for future in futures:
                    future.cancel()
                raise
        return list(ended)

    def submit(self, request: Request) -> Future[Result]:
        """Queue a request.

        Raises:
            Refused: 429 or 503.
        """
        try:
            return self.pool.submit(request)
        except PoolFull:
            raise self.full() from None
        except PoolClosed:
            raise self.stopping() from None

    def full(self) -> Refused:
        """The answer where all places are taken."""
        pool = self.pool
        mean = pool.seconds / max(1, pool.done.total()) or 1.0
        wait = min(60, max(1, math.ceil((pool.queued + 1) * mean / pool.jobs)))
        what = f"{pool.jobs} programs run and {pool.waiting} wait"
        return Refused(429, "POOL-FULL", what, f"try again in {wait} s", {"Retry-After": str(wait)})

    def stopping(self) -> Refused:
        """The answer while it's being stopped."""
        return Refused(
            503, "STOPPING", "the service is being stopped", "ask another one", {"Retry-After": "5"}
        )

    def languages(self) -> list[dict[str, Any]]:
        """``GET /languages``."""
        return language_rows()

    def openapi(self) -> dict[str, Any]:
        """``GET /openapi.json``."""
        return document(self.bounds)

    def health(self) -> dict[str, Any]:
        """``GET /health``."""
        pool = self.pool
        return {
            "status": "ok" if pool.is_open else "stopping", "version": VERSION,
            "isolation": asdict(pool.sandbox.isolation), "jobs": pool.jobs, "waiting": pool.waiting,
            "running": pool.running, "queued": pool.queued, "seconds": round(monotonic() - self._since, 3),
            "done": {verdict: pool.done[verdict] for verdict in (*VERDICTS, "error")},
        }  # fmt: skip

    def metrics(self) -> str:
        """``GET /metrics``, as Prometheus reads it."""
        pool, lines = self.pool, list[str]()

        def add(name: str, kind: str, about: str, values: dict[str, float]) -> None:
            lines.extend((f"# HELP llmfw_sandbox_{name} {about}", f"# TYPE llmfw_sandbox_{name} {kind}"))
            lines.extend(f"llmfw_sandbox_{name}{labels} {value}" for labels, value in values.items())

        done = {f'{{verdict="{one}"}}': pool.done[one] for one in (*VERDICTS, "error")}
        add("requests_total", "counter", "Requests that ended, by verdict.", dict(done))
        add("run_seconds_total", "counter", "Seconds that they ran for.", {"": round(pool.seconds, 6)})
        places = {'{state="running"}': pool.running, '{state="queued"}': pool.queued}
        add("places", "gauge", "Requests that are here.", dict(places))
        most = {'{state="running"}': pool.jobs, '{state="queued"}': pool.waiting}
        add("places_most", "gauge", "Requests that may be here.", dict(most))
        with self._changed:
            answers = {
                f'{{path="{path}",status="{status}"}}': count
                for (path, status), count in sorted(self.answered.items())
            }
        add("answers_total", "counter", "HTTP answers.", dict(answers))
        if isinstance(pool.sandbox, Cached):
            found = {'{outcome="hit"}': pool.sandbox.hits, '{outcome="miss"}': pool.sandbox.misses}
            add(
                "cache_total", "counter", "Results from the cache, and those that weren't there.", dict(found)
            )
        return "\n".join(lines) + "\n"

    # What a handler tells.

    def begun(self) -> None:
        """An answer is being made."""
        with self._changed:
            self._busy += 1

    def ended(self, path: str, status: int) -> None:
        """It's out."""
        with self._changed:
            self._busy -= 1
            self.answered[path, status] += 1
            self._changed.notify_all()


def _bad(error: LlmfwError) -> Refused:
    message = f"{error.key}: {error.what}" if error.key else error.what
    return Refused(400, error.code, message, error.mend)


def _told(error: Refused) -> dict[str, Any]:
    return {"error": {"code": error.code, "message": error.message, "mend": error.mend}}


def _insist(client: socket.socket) -> None:
    """Raises ConnectionError where the client has hung up."""
    readable, _, _ = select.select([client], [], [], 0)
    if readable and not client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
        raise ConnectionResetError("the client is gone")


def _resolved(host: str, port: int) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ServiceError(
            "HOST", f"{host!r} isn't found: {error}", mend="name 127.0.0.1", key="host"
        ) from error
    return found[0][0], found[0][4]


class _Server(ThreadingHTTPServer):
    """A thread for each connection, and a bound on them."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self, service: Service, family: socket.AddressFamily, address: tuple[Any, ...], most: int
    ) -> None:
        self.address_family, self.service, self._most = family, service, most
        self._open, self._changed = 0, Condition()
        try:
            super().__init__(address[:2], Handler)
        except OSError as error:
            raise ServiceError(
                "PORT", f"port {address[1]} of {address[0]} can't be had: {error.strerror}",
                mend="give another --port; 0 finds one", key="port",
            ) from error  # fmt: skip

    def server_bind(self) -> None:
        """Without asking a name server who we are."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """On a thread, or a short no where there are too many."""
        with self._changed:
            room = self._open < self._most
            self._open += room
        if room:
            super().process_request(request, client_address)
            return
        Handler.turn_away(request)
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """A connection from its beginning to its end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._changed:
                self._open -= 1

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are no news."""
        _log.debug("a connection broke", exc_info=True)
