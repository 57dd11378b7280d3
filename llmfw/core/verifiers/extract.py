"""The final answer in a response: always the last one, for an earlier one may have been taken back."""

from __future__ import annotations

import re

from llmfw.core.verifiers.match import answer_line

_STATED = re.compile(
    r"\banswer(?:\s+to\s+[^.\n]{1,80}?)?\s+(?:is|was|equals|(?:would|should|must|will)\s+be)\b[ \t]*:?\s*"
    r"(?:(?:therefore|thus|then|hence|simply|just|exactly|indeed|equal to|given by)\s+)*",
    re.IGNORECASE,
)
_END = re.compile(
    r"\n|[.!?;](?=\s|$)|\.\.\."
    r"|,?\s(?:and\s+)?(?:because|since|which|where|so|as|but|not|thus|therefore)\b",
    re.IGNORECASE,
)
"""Where an answer inside of a sentence ends."""
_HASHES = re.compile(r"^[ \t]*####(?!#)[ \t]*(\S.*)$", re.MULTILINE)
_WRAPPED = (
    ("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("*", "*"), ("__", "__"),
    ("`", "`"),
)  # fmt: skip
_SHORT, _WORDS = 80, 5
"""Characters and words of a response that is nothing but its answer."""


def final(response: str) -> str | None:
    """The final answer that a response states, or None.

    Of the text after a closed ``<think>`` it is what stands behind the last ``Answer:`` (or ``####``) that
    begins a line; else in the last ``\\boxed{}``; else behind the last "the answer is"; else all of a
    response that is one short line. A box, or "the answer is", inside of the first is looked into.
    """
    text = response.rpartition("</think>")[2].strip()
    said = marked(text)
    if said is not None:
        inner = boxed(said) or stated(said)
        return plain(inner if inner is not None else said) or None
    for found in (boxed(text), stated(text)):
        if found is not None and plain(found):
            return plain(found)
    return plain(text) if is_short(text) and plain(text) else None


def marked(text: str, *, whole: bool = False) -> str | None:
    """What stands behind the last ``Answer:`` that begins a line, else behind the last ``####``; ``whole``:
    to the end of the text, not of the line.
    """
    found = answer_line(text, whole=whole)
    if found is None:
        hashes = list(_HASHES.finditer(text))
        found = (text[hashes[-1].start(1) :] if whole else hashes[-1][1]).strip() if hashes else None
    return found


def boxed(text: str) -> str | None:
    """What the last ``\\boxed{}`` (or ``\\fbox{}``) holds, braces balanced; None without a closed one."""
    begins = {one.end() for one in re.finditer(r"\\f?box(?:ed)?\s*\{", text)}
    opened: list[int] = []
    last: tuple[int, int] | None = None
    for sign in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        if sign.group() == "{":
            opened.append(sign.end())
        elif sign.group() == "}" and opened:
            begin = opened.pop()
            if begin in begins and (last is None or begin > last[0]):
                last = begin, sign.start()
    return text[last[0] : last[1]].strip() if last else None


def stated(text: str) -> str | None:
    """What the last "the answer is" says, to the end of its sentence or to its explanation."""
    found = list(_STATED.finditer(text))
    for one in reversed(found):
        rest = text[one.end() : one.end() + 300]
        end = _END.search(rest)
        said = rest[: end.start()] if end else rest
        if said.strip():
            return said.strip()
    return None


def is_short(text: str) -> bool:
    """Whether a text is one short line: an answer and nothing besides."""
    cut = r"\boxed{" in text  # it was never closed
    return "\n" not in text.strip() and len(text) <= _SHORT and len(text.split()) <= _WORDS and not cut


def plain(text: str) -> str:
    """An answer without what is put around it: white space, signs of emphasis and of mathematics, a box,
    ``\\text{}``, a final full stop.
    """
    text = text.strip()
    while True:
        before = text
        text = text.strip().strip(",;:").strip()
        if text.endswith(".") and not text.endswith(".."):
            text = text[:-1].rstrip()
        for opening, closing in _WRAPPED:
            inside = text[len(opening) : len(text) - len(closing)]
            around = text.startswith(opening) and text.endswith(closing)
            if around and len(text) >= len(opening) + len(closing) and closing not in inside:
                text = inside.strip()
        held = re.match(r"\\(?:boxed|fbox|text|mathrm|mathbf|textbf)\s*\{", text)
        if held and _closed_at(text, held.end()) == len(text):
            text = text[held.end() : -1].strip()
        if text == before:
            return text


def _closed_at(text: str, begin: int) -> int:
    """The index after the brace that closes the one before ``begin``, or -1."""
    depth = 1
    for at in range(begin, len(text)):
        depth += (text[at] == "{") - (text[at] == "}")
        if depth == 0:
            return at + 1
    return -1
