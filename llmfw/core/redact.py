"""Keeps secrets out of what is printed and logged: by a key's name, in URLs, and by the forms of tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "[hidden]"
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_SECRET = frozenset(
    {"password", "passwd", "passphrase", "pwd", "secret", "secrets", "credential", "credentials"}
    | {"authorization", "bearer", "apikey", "accesskey"}
)
_KEY_OF = frozenset({"api", "access", "private", "secret", "signing", "encryption", "ssh", "account"})
_HARMLESS_TOKENS = frozenset(
    {"bos", "eos", "pad", "unk", "sep", "cls", "mask", "stop", "start", "end", "first", "last", "next", "new"}
    | {"special", "image", "audio", "turn", "sequence", "decoder", "forced", "suppress", "extra", "per"}
    | {"max", "min", "and"}
)
_USERINFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<user>[^/?#\s]*)@")
_QUERY = re.compile(
    r"(?P<name>[?&;](?:[\w.-]*(?:token|sig|signature|secret|password|passwd|key|credential))=)[^&;#\s]+",
    re.IGNORECASE,
)
_TOKEN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|sk-[\w-]{16,}"
    r"|AKIA[0-9A-Z]{16}|xox[abprs]-[\w-]{10,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{5,})"
    r"|(?<=Bearer )\S+"
)


def is_secret_key(key: str) -> bool:
    """Whether a dotted key names a password, a token or the like (``pad_token`` doesn't)."""
    for part in re.split(r"[.\[\]]+", key):
        words = [word.lower() for word in _WORDS.findall(part)]
        for before, word in zip(["", *words], words):
            if word in _SECRET or (word == "key" and before in _KEY_OF):
                return True
        if words[-1:] == ["token"] and not _HARMLESS_TOKENS.intersection(words[-2:-1]):
            return True
    return False


def redact_text(text: str) -> str:
    """Text without user information and secret values in URLs, and without known forms of tokens."""
    text = _USERINFO.sub(lambda match: f"{match['scheme']}{HIDDEN}@", text)
    text = _QUERY.sub(lambda match: f"{match['name']}{HIDDEN}", text)
    return _TOKEN.sub(HIDDEN, text)


def redact(flat: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of settings (dotted or nested keys) that may be printed and logged."""
    return {key: _redacted(key, value) for key, value in flat.items()}


def shown(key: str, value: Any) -> str:
    """A value as an error message may quote it."""
    text = repr(_redacted(key, value))
    return text if len(text) <= 80 else f"{text[:77]}..."


def _redacted(key: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _redacted(f"{key}.{name}", part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_redacted(key, part) for part in value]
    if value is None or isinstance(value, bool):
        return value
    if is_secret_key(key):
        return HIDDEN
    return redact_text(value) if isinstance(value, str) else value
