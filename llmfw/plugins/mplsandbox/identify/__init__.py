"""Which language a program is written in: what it says of itself, then a vote.

    identify("puts gets.to_i * 2").lang                 # "ruby"
    identify("Here it is:\\n```go\\n...\\n```").code    # the block's content

In this order: the label of a Markdown fence, the first line (``#!``), the file's name, and then a vote of
Python's parser, a JSON parser, the signs of data/evidence/ and, where these leave doubt, ``magika`` if
it's installed. No program is started, nothing of the text is run, and what is read of it is bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

from ..languages import LanguageError, language, languages
from . import claims, votes

UNKNOWN = votes.UNKNOWN
TOLD = 0.98
"""Confidence in what a text or its name says of itself."""


@dataclass(frozen=True, kw_only=True)
class Guess:
    """A language's id, or ``unknown``.

    Attributes:
        confidence: from 0 to 1, that ``lang`` is right. It grows with the lead in the vote; it isn't a
            measured frequency.
        by: what decided: ``fence``, ``shebang``, ``extension``, ``evidence``, ``magika`` or ``nothing``
            (there is no text).
        code: the program; a Markdown fence around it is gone.
    """

    lang: str
    confidence: float
    by: str
    code: str


def identify(text: str, *, name: str = "", model: bool = True) -> Guess:
    """The language of a program, or of the only fenced block of a Markdown text.

    Args:
        name: of its file, if it has one.
        model: ask ``magika`` where it's installed.
    """
    code, label = claims.unfenced(text)
    told = {
        "fence": _of_label(label),
        "shebang": _of_interpreter(claims.interpreter(code)),
        "extension": _of_extension(PurePath(name).suffix),
    }
    for by, lang in told.items():
        if lang:
            return Guess(lang=lang, confidence=TOLD, by=by, code=code)
    lang, confidence, by = votes.vote(code, model=model)
    return Guess(lang=lang, confidence=confidence, by=by, code=code)


def _of_label(label: str) -> str:
    for word in _spellings(label):
        try:
            return language(word).id
        except LanguageError:
            pass
    return _foreign(label)


def _of_interpreter(program: str) -> str:
    for word in _spellings(program):
        for lang in languages().values():
            if word in lang.interpreters:
                return lang.id
    return _foreign(program)


def _of_extension(suffix: str) -> str:
    for word in (suffix, suffix.lower()):
        for lang in languages().values():
            if word in lang.extensions:
                return lang.id
    return _foreign(suffix.lstrip("."))


def _spellings(word: str) -> tuple[str, ...]:
    """As it stands, and without a version behind it."""
    return (word, word.rstrip("0123456789.")) if word else ()


def _foreign(word: str) -> str:
    """``unknown`` for a name of something that isn't of the table; empty for a word that says nothing."""
    return UNKNOWN if word.lower() in votes.evidence().names else ""
