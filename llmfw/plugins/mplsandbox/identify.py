"""Which language a program is written in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Guess:
    """A language's id, or ``unknown``, with a confidence from 0 to 1 and what decided."""

    lang: str
    confidence: float
    by: str


def identify(code: str, *, name: str = "") -> Guess:
    return Guess(lang="python", confidence=0.5, by="nothing")
