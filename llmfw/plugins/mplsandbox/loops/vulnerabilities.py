"""Vulnerability location: a policy judges what analysers suspect, and names what they missed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..analysis import Finding, analyze
from ..analysis.untrusted import clean
from ..executor import Sandbox
from ..feedback import vulnerability_prompt
from ..records import Request

Judged = Literal["real", "false", "missed", "open"]
_SAID = re.compile(r"^\W*(?:line\s*)?(\d{1,6})\W*:\W*(real|false|missed)\W*:\s*(.+)$", re.IGNORECASE)
_WHY = 500
"""Characters of a reason that are kept."""


@dataclass(frozen=True, kw_only=True)
class Suspicion:
    """A line that may be vulnerable.

    Attributes:
        judged: ``real`` or ``false``, what the policy says of what analysers suspect; ``missed``, what the
            policy alone suspects; ``open``, the policy says nothing.
        why: its reason.
        findings: what analysers say of this line.
    """

    line: int
    judged: Judged
    why: str
    findings: tuple[Finding, ...]


def locate_vulnerabilities(
    policy: Any, sandbox: Sandbox, request: Request, *, sampling: Mapping[str, Any] | None = None
) -> list[Suspicion]:
    """Ask a policy which lines of a program are vulnerable; in the order of lines.

    Nothing that an analyser suspects is lost: what the answer leaves out stays open. A line that isn't of the
    program is passed over, and a line that nobody suspected is ``missed`` whatever the answer calls it.

    Args:
        policy: of ``llmfw``: local, scripted or an endpoint.
        sampling: settings of its ``generate``.
    """
    analysis = analyze(sandbox, request, ("bug",))
    [answer] = policy.generate(
        [vulnerability_prompt(request.code, analysis.lang, analysis)], **(sampling or {})
    )
    suspected: dict[int, tuple[Finding, ...]] = {}
    for one in analysis.findings("bug"):
        suspected[one.line] = (*suspected.get(one.line, ()), one)
    said = _said(answer.text, len(request.code.splitlines()))
    found = []
    for line in sorted({*suspected, *said}):
        judged, why = said.get(line, ("open", ""))
        findings = suspected.get(line, ())
        if not findings and judged == "false":
            continue
        if judged != "open":
            judged = "missed" if not findings else "false" if judged == "false" else "real"
        found.append(Suspicion(line=line, judged=judged, why=why, findings=findings))
    return found


def _said(answer: str, lines: int) -> dict[int, tuple[Judged, str]]:
    """Line -> what the answer says of it first."""
    words: dict[str, Judged] = {"real": "real", "false": "false", "missed": "missed"}
    found: dict[int, tuple[Judged, str]] = {}
    for text in answer.splitlines():
        if (match := _SAID.match(text)) and 1 <= int(match[1]) <= lines:
            found.setdefault(int(match[1]), (words[match[2].lower()], clean(match[3], _WHY)))
    return found
