"""Verifier ``math``: mathematical equivalence of final answers, by math-verify within bounds."""

from __future__ import annotations

import importlib.util
import re

from llmfw.core.errors import ResourceError
from llmfw.core.records import Row
from llmfw.core.verifiers.by_answer import ByAnswer, reference
from llmfw.core.verifiers.equal import equal, parsed
from llmfw.core.verifiers.extract import plain
from llmfw.core.verifiers.match import matches, normalised, number_of
from llmfw.core.verifiers.typed import latex
from llmfw.core.verifiers.value import alike, another, same_value

_LONGEST = 300
_MOST = 16
"""Members of a list that are compared."""
_NAMES = frozenset(
    "sqrt floor ceil ceiling log ln sin cos tan cot sec csc exp max min mod pi alpha beta theta infinity "
    "oo".split()
)
_SAID = frozenset(
    "no on of in is it to as at by if or an and the yes not all any one two six ten red odd day he she we us "
    "so do go up my me man men boy her him his who was can may has had get new old way big".split()
)
"""Short words that aren't unknowns beside each other."""
_BRACKETS = {"(": ")", "[": "]", r"\{": r"\}", "{": "}", r"\left(": r"\right)", r"\left[": r"\right]",
             r"\left\{": r"\right\}"}  # fmt: skip
_TYPED = re.compile(r"(?<![A-Za-z\\])(pi|alpha|beta|theta|sin|cos|tan|log|ln|exp)(?![A-Za-z])")
_SPACES = re.compile(r"\\(?:[,;:! ]|q?quad\b|displaystyle\b|limits\b)|~")


def build(service: object = None) -> ByAnswer:
    """The verifier ``math``.

    Raises:
        ResourceError: MATH-VERIFY, the package isn't installed.
    """
    if importlib.util.find_spec("math_verify") is None:
        raise ResourceError(
            "MATH-VERIFY",
            "the verifier 'math' needs math-verify",
            mend="run: python -m pip install 'llmfw[demo]'",
        )
    return ByAnswer(same=lambda row, answer: same(reference(row), answer), other=_other)


def same(gold: str, claim: str) -> bool | None:
    """Whether two answers are the same words, number, expression or list; None where it can't be told.

    Words are compared as words, two numbers exactly; lists member by member: sets and enumerations in any
    order, tuples and intervals in theirs. A claim that is no expression, or one too large to work out, is
    another answer than a gold answer that is one.
    """
    if same_value(gold, claim):
        return True
    if len(claim) > _LONGEST or len(gold) > _LONGEST:
        return False if len(gold) <= _LONGEST else None
    bare = alike(gold, claim)
    if bare is None:
        return False
    left, right = (_SPACES.sub(" ", text).strip() for text in bare)
    if matches(right, left) or normalised(right.replace(" ", "")) == normalised(left.replace(" ", "")):
        return True
    if "=" in left and "=" in right:
        return _equations(left, right)
    if (number_of(left) is not None and number_of(right) is not None) or _wordy(left) or _wordy(right):
        return False
    return _listed(left, right)


def _equations(left: str, right: str) -> bool | None:
    """Of two equations for one thing, what it equals is compared; of others only the sides as they are."""
    (one, _, first), (other, _, second) = left.partition("="), right.partition("=")
    if normalised(one) == normalised(other):
        return same(first.strip(), second.strip())
    return True if same(one, other) and same(first, second) else None


def _listed(left: str, right: str) -> bool | None:
    (kind, wanted), (other, said) = _members(left), _members(right)
    if len(wanted) == 1 and len(said) == 1 and kind in ("", "set") and other in ("", "set"):
        return _one(wanted[0], said[0])
    if kind != other or len(wanted) != len(said):
        unordered = {kind, other} <= {"", "set"}
        if not unordered or len(wanted) != len(said):
            return False
    if len(wanted) > _MOST:
        return None
    if kind not in ("", "set"):
        return _all([same(one, another_one) for one, another_one in zip(wanted, said)])
    return _matched(wanted, said)


def _matched(wanted: list[str], said: list[str]) -> bool | None:
    """Whether each member wanted is said once; equality being transitive, the first that fits is taken."""
    left = list(said)
    unsure = False
    for one in wanted:
        found = [same(one, other) for other in left]
        if True in found:
            del left[found.index(True)]
        elif None in found:
            unsure = True
        else:
            return False
    return None if unsure else True


def _all(found: list[bool | None]) -> bool | None:
    if False in found:
        return False
    return None if None in found else True


def _one(gold: str, claim: str) -> bool | None:
    left, right = _latex(gold), _latex(claim)
    if left == right:
        return True
    wanted, said = parsed(left), parsed(right)
    if wanted is None:
        return None
    return False if said is None else equal(left, right)


def _latex(text: str) -> str:
    text = re.sub(r"(?<!\d)\.(?=\d)", "0.", plain(text))
    return _TYPED.sub(r"\\\1", re.sub(r"\b(?:infinity|oo)\b|∞", r"\\infty", latex(text)))


def _members(text: str) -> tuple[str, list[str]]:
    """(the kind of its brackets, the members): ``(1, 2]`` is ``(]`` with two, ``1, 4 and 9`` has no brackets,
    ``\\pm 2`` is two.
    """
    for opening in sorted(_BRACKETS, key=len, reverse=True):
        for closing in sorted(set(_BRACKETS.values()), key=len, reverse=True):
            inside = text[len(opening) : len(text) - len(closing)]
            if text.startswith(opening) and text.endswith(closing) and "," in inside and _whole(inside):
                kind = f"{opening[-1]}{closing[-1]}"
                return ("set" if kind == "{}" else kind), _split(inside)
    signed = re.match(r"(.*?)(?:\\pm|±)\s*(.+)", text)
    if signed and "," not in text:
        return "", [f"{signed[1]}+{signed[2]}", f"{signed[1]}-{signed[2]}"]
    return "", _split(text)


def _whole(inside: str) -> bool:
    """Whether what stands between two brackets opens none that it doesn't close, so that they're a pair."""
    depth = 0
    for sign in inside:
        depth += (sign in "([{") - (sign in ")]}")
        if depth < 0:
            return False
    return depth == 0


def _split(text: str) -> list[str]:
    """The parts between commas, ``and``, ``or`` outside of brackets; a thousands comma separates nothing."""
    parts, depth, begin = [], 0, 0
    for found in re.finditer(
        r"[(\[{]|[)\]}]|,\s*(?:and|or)\b|,|\b(?:and|or)\b|\\text\s*\{\s*(?:and|or)\s*\}", text
    ):
        sign = found.group()
        if sign in "([{":
            depth += 1
        elif sign in ")]}":
            depth -= 1
        elif depth == 0 and not _thousands(text, found.start(), sign):
            parts.append(text[begin : found.start()].strip())
            begin = found.end()
    parts.append(text[begin:].strip())
    return [part for part in parts if part]


def _thousands(text: str, at: int, sign: str) -> bool:
    return sign == "," and bool(re.match(r",\d{3}(?!\d)", text[at:])) and text[at - 1 : at].isdigit()


def _wordy(text: str) -> bool:
    """Whether a text has words that are no mathematics: they'd be read as products of letters. Three letters
    in a row or fewer may be unknowns beside each other, as in ``2xy``.
    """
    bare = re.sub(r"\\(?:text|mathrm|mbox|textbf)\b", " words ", re.sub(r"\b(?:and|or)\b", " ", text))
    found = re.findall(r"(?<!\\)(?<![A-Za-z])[A-Za-z]{2,}", bare)
    return any(word not in _NAMES and (len(word) > 3 or word.lower() in _SAID) for word in found)


def _other(row: Row) -> str:
    return another(reference(row))
