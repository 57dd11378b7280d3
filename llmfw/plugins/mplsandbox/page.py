"""The service's page, and the policy under which a browser shows it."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache

from .languages import DATA


@cache
def page() -> tuple[bytes, str]:
    """The page, and a Content-Security-Policy that lets run what stands in it and nothing else."""
    html = (DATA / "service/page.html").read_text(encoding="utf-8")
    script, style = (_hashes(html, tag) for tag in ("script", "style"))
    policy = (
        f"default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    )
    return html.encode(), policy


def _hashes(html: str, tag: str) -> str:
    found = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    digests = (hashlib.sha256(text.encode()).digest() for text in found)
    return " ".join(f"'sha256-{base64.b64encode(one).decode()}'" for one in digests)
