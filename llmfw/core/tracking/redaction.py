"""Takes secrets out of what is written down: by the names of keys, the forms of tokens, and in URLs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

HIDDEN = "***"

_SECRET_WORDS = frozenset(
    {
        "password",
        "passwd",
        "passphrase",
        "secret",
        "secrets",
        "apikey",
        "credential",
        "credentials",
        "authorization",
        "bearer",
    }
)
_KEY_OWNERS = frozenset(
    {"api", "access", "private", "secret", "account", "auth", "encryption", "signing", "ssh"}
)
# what precedes `token` in the names of a tokenizer's settings
_VOCABULARY = frozenset(
    {
        "pad",
        "eos",
        "bos",
        "unk",
        "sep",
        "cls",
        "mask",
        "image",
        "audio",
        "video",
        "stop",
        "special",
        "end",
        "start",
        "begin",
        "new",
        "extra",
        "per",
        "by",
        "first",
        "last",
        "next",
        "fake",
        "prefix",
        "suffix",
        "middle",
        "decoder",
        "boundary",
    }
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")

# every repetition is bounded or can't fail after it began, so that no text takes more than linear time
_USERINFO = re.compile(r"(?P<scheme>\b[a-zA-Z][a-zA-Z0-9+.-]{0,20}://)[^/\s@'\"<>]{1,300}@")
_TOKENS = re.compile(
    r"\bhf_[A-Za-z0-9]{16,}"
    r"|\bsk-[A-Za-z0-9_-]{16,}"
    r"|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_[A-Za-z0-9_]{20,}|\bglpat-[A-Za-z0-9_-]{16,}"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"
    r"|\bAIza[0-9A-Za-z_-]{35}"
    r"|\bxox[abeoprs]-[A-Za-z0-9-]{10,}"
    r"|\bnpm_[A-Za-z0-9]{30,}|\bpypi-[A-Za-z0-9_-]{30,}"
    r"|\bdapi[a-f0-9]{32}\b"
    r"|\beyJ[A-Za-z0-9_-]{8,500}\.eyJ[A-Za-z0-9_-]{8,2000}\.[A-Za-z0-9_-]+"
)
_PEM = re.compile(
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,30}PRIVATE KEY-----|\Z)", re.DOTALL
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s{1,4}[A-Za-z0-9._~+/=-]{16,}")
_ASSIGNED = re.compile(
    r"(?i)(?P<name>(?:password|passwd|passphrase|secret|api[_-]?key|access[_-]?key|private[_-]?key"
    r"|(?:auth|access|api|hub|hf|bearer|refresh|github|gitlab|wandb|session)[_-]?token)"
    r"[\w.-]{0,40}[\"']?\s{0,4}[:=]\s{0,4})(?P<quote>[\"']?)(?P<value>[^\s\"'#,;&]{6,})"
)


def is_secret(key: str) -> bool:
    """Whether a key names a secret: ``hub.token``, ``apiKey``; not ``pad_token`` or ``max_tokens``."""
    words = [word.lower() for word in _WORD.findall(key.rsplit(".", 1)[-1])]
    pairs = list(pairwise(words))
    if _SECRET_WORDS.intersection(words) or any(
        first in _KEY_OWNERS and second in ("key", "keys") for first, second in pairs
    ):
        return True
    return words[-1:] == ["token"] and (len(words) == 1 or words[-2] not in _VOCABULARY)


def redact_text(text: str) -> str:
    """The text without passwords in URLs, well-known tokens, private keys, and values of secret names."""
    text = _PEM.sub(HIDDEN, text)
    text = _USERINFO.sub(lambda found: f"{found['scheme']}{HIDDEN}@", text)
    text = _TOKENS.sub(HIDDEN, text)
    text = _BEARER.sub(lambda found: f"{found[1]} {HIDDEN}", text)
    return _ASSIGNED.sub(_hide_assigned, text)


def redact(value: Any, key: str = "") -> Any:
    """The value (mappings and lists inside it too) with secrets replaced by ``***``."""
    if isinstance(value, Mapping):
        return {name: redact(item, str(name)) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact(item, key) for item in value]
    if key and is_secret(key) and value not in (None, "") and not isinstance(value, bool):
        return HIDDEN
    return redact_text(value) if isinstance(value, str) else value


def _hide_assigned(found: re.Match[str]) -> str:
    # a reference to a variable or a call is no secret: os.environ[...], get_token(), ${TOKEN}
    plain = found["quote"] or not re.search(r"[$()\[\]{}]|\bNone\b|\bnull\b|\bstr\b", found["value"])
    return f"{found['name']}{found['quote']}{HIDDEN}" if plain else found[0]
