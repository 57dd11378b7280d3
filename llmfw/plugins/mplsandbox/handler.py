"""One connection of the service: reads with a deadline, checks before it reads, answers in JSON."""

from __future__ import annotations

import io
import logging
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from time import monotonic
from typing import TYPE_CHECKING, Any

from llmfw import LlmfwError

from .gate import Refused
from .page import page
from .wire import line_of, parse

if TYPE_CHECKING:
    from .service import Service

_log = logging.getLogger(__name__)
_HEAD = 10.0
"""Seconds for a request's first line and headers; what a kept connection may wait, too."""
_SLOWEST = 1 << 18
"""Bytes a second at which a body must arrive, after ``_HEAD`` seconds."""
_WRITE = 30.0
"""Seconds in which a client must take a MiB."""
_JSON = "application/json"
ROUTES: Mapping[str, str] = {
    "/": "GET", "/run": "POST", "/batch": "POST", "/languages": "GET", "/health": "GET", "/metrics": "GET",
    "/openapi.json": "GET",
}  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    protocol_version = "HTTP/1.1"
    rfile: Any

    @property
    def service(self) -> Service:
        """What it answers for."""
        found: Service = self.server.service  # type: ignore[attr-defined]  # our own server's
        return found

    @staticmethod
    def turn_away(client: socket.socket) -> None:
        """Say that there are too many connections."""
        error = {
            "code": "CONNECTIONS",
            "message": "there are too many connections",
            "mend": "try again later",
        }
        body = line_of({"error": error}).encode() + b"\n"
        head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: {_JSON}\r\nContent-Length: {len(body)}\r\n"
        with suppress(OSError):
            client.settimeout(0.1)
            client.sendall(head.encode() + b"Retry-After: 1\r\nConnection: close\r\n\r\n" + body)

    def setup(self) -> None:
        """Reading has a deadline, not only a longest pause."""
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._timed = _Timed(self.connection)
        self.rfile = io.BufferedReader(self._timed)

    def handle_one_request(self) -> None:
        """A request, whose head must be here in time."""
        self._timed.until = monotonic() + _HEAD
        self.path, self._status = "", 0
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def handle_expect_100(self) -> bool:
        """``Expect: 100-continue``: what would be refused anyway needn't be sent."""
        try:
            self._allowed()
        except Refused as error:
            self._refuse(error)
            return False
        return super().handle_expect_100()

    def _answer(self) -> None:
        self.service.begun()
        try:
            try:
                self._route(self._allowed())
            except Refused as error:
                self._refuse(error)
            except LlmfwError as error:
                self._refuse(Refused(400, error.code, error.what, error.mend))
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except Exception:
            _log.exception("%s failed", self.path)
            with suppress(OSError):
                self._refuse(Refused(500, "BUG", "this is the service's fault", "see its log"))
        finally:
            path = self._where()
            self.service.ended(path if path in ROUTES else "other", self._status)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _answer  # noqa: N815  # http.server's names

    def _where(self) -> str:
        return self.path.partition("?")[0]

    # Before the body.

    def _allowed(self) -> int:
        """Look at all but the body. -> Its length.

        Raises:
            Refused: with the status that says why.
        """
        path = self._where()
        method = ROUTES.get(path)
        self.service.gate.look(self.headers, self.command, path)
        if method is None:
            raise Refused(404, "PATH", "there's no such path", f"use one of {', '.join(ROUTES)}")
        if self.command != method:
            raise Refused(405, "METHOD", f"{path} has no {self.command}", f"use {method}", {"Allow": method})
        if method == "GET":
            return self._length(needed=False)
        length = self._length(needed=True)
        if length > (most := self.service.bounds.body):
            raise Refused(
                413, "BODY-SIZE", f"{length} bytes are more than {most}", "send less in one request"
            )
        kind, charset = self.headers.get_content_type(), self.headers.get_content_charset() or "utf-8"
        if kind != _JSON or charset.replace("-", "") not in ("utf8", "usascii"):
            raise Refused(415, "CONTENT-TYPE", f"the body isn't {_JSON}", f"send Content-Type: {_JSON}")
        pool = self.service.pool
        if not pool.is_open:
            raise self.service.stopping()
        if pool.full:
            raise self.service.full()
        return length

    def _length(self, *, needed: bool) -> int:
        told = self.headers.get_all("Content-Length") or []
        if "Transfer-Encoding" in self.headers or (needed and not told):
            raise Refused(411, "LENGTH", "the body has no length", "send Content-Length, and no chunks")
        if len(told) > 1 or not all(one.isascii() and one.isdigit() and len(one) < 16 for one in told):
            raise Refused(400, "LENGTH", "Content-Length isn't one number", "send one")
        length = int(told[0]) if told else 0
        if length and not needed:
            raise Refused(400, "LENGTH", "this method has no body", "send none")
        return length

    # The body and the answer.

    def _route(self, length: int) -> None:
        path = self._where()
        if path in ("/run", "/batch"):
            row = parse(self._body(length), bounds=self.service.bounds)
            if path == "/run":
                self._send(200, self.service.run(row, self.connection))
            else:
                self._stream(self.service.batch(row, self.connection))
        elif path == "/":
            html, policy = page()
            self._say(200, html, "text/html; charset=utf-8", {"Content-Security-Policy": policy})
        elif path == "/metrics":
            self._say(200, self.service.metrics().encode(), "text/plain; version=0.0.4; charset=utf-8", {})
        elif path == "/health":
            found = self.service.health()
            self._send(200 if found["status"] == "ok" else 503, found)
        else:
            self._send(200, self.service.languages() if path == "/languages" else self.service.openapi())

    def _body(self, length: int) -> bytes:
        self._timed.until = monotonic() + _HEAD + length / _SLOWEST
        try:
            body: bytes = self.rfile.read(length)
        except TimeoutError:
            raise Refused(408, "SLOW", "the body didn't arrive in time", "send it faster") from None
        if len(body) < length:
            raise ConnectionResetError("the client is gone")
        return body

    def _send(self, status: int, value: Any) -> None:
        self._say(status, line_of(value).encode() + b"\n", _JSON, {})

    def _say(self, status: int, body: bytes, kind: str, headers: Mapping[str, str]) -> None:
        self._head(status, kind, {"Content-Length": str(len(body)), **headers})
        if self.command != "HEAD":
            self._write(body)

    def _head(self, status: int, kind: str, headers: Mapping[str, str]) -> None:
        self._status = status
        self.send_response(status)
        more = {
            "Content-Type": kind, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin", **headers,
        }  # fmt: skip
        if not self.service.pool.is_open:
            self.close_connection = True
        if self.close_connection:
            more["Connection"] = "close"
        for name, value in more.items():
            self.send_header(name, value)
        self.connection.settimeout(_WRITE)
        self.end_headers()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            self.connection.settimeout(_WRITE)
            self.wfile.write(view[: 1 << 20])
            view = view[1 << 20 :]

    def _stream(self, rows: Iterable[Any]) -> None:
        chunks = self.request_version == "HTTP/1.1"
        self.close_connection = self.close_connection or not chunks
        self._head(200, "application/jsonl", {"Transfer-Encoding": "chunked"} if chunks else {})
        for row in rows:
            line = line_of(row).encode() + b"\n"
            self._write(b"%x\r\n%b\r\n" % (len(line), line) if chunks else line)
        if chunks:
            self._write(b"0\r\n\r\n")

    def _refuse(self, error: Refused) -> None:
        """An error; what the client still sends isn't read any more, so the connection ends."""
        if self._status:  # in the midst of an answer
            self.close_connection = True
            return
        self.close_connection = True
        told = {"error": {"code": error.code, "message": error.message, "mend": error.mend}}
        self._say(error.status, line_of(told).encode() + b"\n", _JSON, error.headers)
        self._linger()

    def _linger(self) -> None:
        """Take a little more of what comes: a client that is cut off while it sends reads no answer."""
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self._timed.until = monotonic() + 1.0
            for _ in range(64):
                if not self.rfile.read1(1 << 17):
                    break

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What http.server itself finds wrong, in our form."""
        self.command = getattr(self, "command", None) or "GET"
        with suppress(OSError):
            self._refuse(Refused(code, "HTTP", message or "this is no HTTP request", "send HTTP/1.1"))

    def version_string(self) -> str:
        """The header ``Server``: no versions."""
        return "llmfw-sandbox"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: /metrics counts."""


class _Timed(io.RawIOBase):
    """A socket's bytes, until a moment."""

    def __init__(self, client: socket.socket) -> None:
        super().__init__()
        self._client, self.until = client, 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self.until - monotonic()
        if left <= 0:
            raise TimeoutError("too slow")
        self._client.settimeout(left)
        return self._client.recv_into(buffer)
