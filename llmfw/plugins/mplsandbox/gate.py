"""Who may ask the service: this machine's own users or those with the token, never another site's page."""

from __future__ import annotations

import hmac
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path

from llmfw import LlmfwError

OPEN = ("/", "/openapi.json")
"""Paths that tell nothing of this machine: no token is needed."""
_SHORTEST = 16
"""Characters of a token."""
VARIABLE = "LLMFW_SANDBOX_TOKEN"


class ServiceError(LlmfwError):
    """The service can't be started as asked (exit code 2)."""

    exit_code = 2


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(
        self, status: int, code: str, message: str, mend: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.mend = status, code, message, mend
        self.headers = dict(headers or {})


@dataclass(frozen=True)
class Gate:
    """Looks at a request's headers.

    Args:
        loopback: the service listens on this machine alone; a browser must have asked for it by such a name,
            so that no other site's name can be made to lead here.
        token: what must be shown; empty: nothing, on loopback.

    Raises:
        ServiceError: TOKEN, off loopback there's none, or it's short.
    """

    loopback: bool
    token: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if not self.loopback and not self.token:
            raise ServiceError(
                "TOKEN", "others than this machine could run programs here, and there's no token",
                mend=f"give --token-file, or set {VARIABLE}; or listen on 127.0.0.1", key="host",
            )  # fmt: skip
        if self.token and (len(self.token) < _SHORTEST or not self.token.isascii() or " " in self.token):
            raise ServiceError(
                "TOKEN", f"the token isn't {_SHORTEST} or more ASCII characters without a space",
                mend="make one: openssl rand -hex 32", key="token",
            )  # fmt: skip

    def look(self, headers: Message, method: str, path: str) -> None:
        """Let a request pass.

        Raises:
            Refused: 400, 401 or 403.
        """
        hosts = headers.get_all("Host") or []
        if len(hosts) != 1:
            raise Refused(400, "HOST", "there must be one Host header", "send one")
        if self.loopback and not is_loopback(_name(hosts[0])):
            raise Refused(
                403,
                "HOST",
                f"{hosts[0][:80]!r} isn't a name of this machine's own",
                "ask for http://127.0.0.1",
            )
        origin, site = headers.get("Origin"), headers.get("Sec-Fetch-Site", "none")
        own = [f"{scheme}://{hosts[0].lower()}" for scheme in ("http", "https")]  # TLS ends before us
        foreign = origin is not None and origin.lower() not in own
        if foreign or (site not in ("none", "same-origin") and (method, path) != ("GET", "/")):
            raise Refused(
                403, "ORIGIN", "another site's page may not ask", "ask from this service's own page"
            )
        if self.token and path not in OPEN:
            kind, _, shown = headers.get("Authorization", "").partition(" ")
            right = hmac.compare_digest(shown.strip().encode("utf-8", "replace"), self.token.encode())
            if kind.lower() != "bearer" or not right:
                raise Refused(
                    401, "TOKEN", "the token is missing or wrong", "send Authorization: Bearer TOKEN",
                    {"WWW-Authenticate": 'Bearer realm="llmfw sandbox"'},
                )  # fmt: skip


def _name(host: str) -> str:
    """A Host header without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if ":" in host else host


def is_loopback(name: str) -> bool:
    """Whether a host's name or address is this machine's own loopback."""
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def token_from(file: str | Path | None) -> str:
    """The token of a file, else of the environment, else none.

    Raises:
        ServiceError: TOKEN-FILE, it can't be read or is empty.
    """
    if file is None:
        return os.environ.get(VARIABLE, "").strip()
    try:
        token = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ServiceError(
            "TOKEN-FILE", f"can't be read: {error}", mend="name a text file", file=file
        ) from error
    if not token:
        raise ServiceError("TOKEN-FILE", "it's empty", mend="write a token into it", file=file)
    return token
