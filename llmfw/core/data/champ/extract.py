"""What a one-sentence summary claims: an expression, a list, a yes or no, or that nothing exists; else
nothing.

Written for precision: a sentence that fits no pattern yields None, and its conversation is left out of pairs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from llmfw.core.verifiers.typed import latex

Kind = Literal["value", "list", "yes", "no", "none", "all", "infinite"]


@dataclass(frozen=True)
class Claim:
    """``expressions`` are LaTeX: one of a ``value``, several of a ``list``. ``approximate`` where the
    sentence says so.
    """

    kind: Kind
    expressions: tuple[str, ...] = ()
    approximate: bool = False


_NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve".split()
_FUNCTIONS = "sqrt floor ceil ceiling log ln sum max min gcd lcm mod".split()
_VERB = re.compile(
    r"\b(?:is|are|equals?|becomes?|was|were)\b\s*"
    r"(?:(?:equal to|exactly|simply|only|just|therefore|thus|given by|always|also|the number|the value|"
    r"calculated as|found to be|determined to be|expressed as|exist(?:s)? and is(?: equal to)?)\s+)*"
)
_APPROXIMATE = re.compile(r"^(?:approximately|about|roughly|around|nearly|close to|almost)\s+|^[≈~]\s*")
_CLAUSES = (
    *"which because since as where when with obtained occurring achieved attained found provided".split(),
    *"considering assuming by using regardless meaning that if after excluding including under".split(),
    *("given that", "based on", "so that", "such that", "due to", "up to", "up until", "modulo rotations?"),
    *("for (?:all|any|every|each|some|a|the)", "and (?:this|it|that)", "in (?:total|all)"),
)
"""Words that open an explanation after the answer."""
_CUT = re.compile(rf"(?:,|;|\s)\s*(?:{'|'.join(_CLAUSES)})\b")
_THERE = re.compile(
    r"^(?:thus,? |therefore,? |so,? |hence,? )?"
    r"there (?:is|are|exists?|will be|would be)(?: a total of| in total)? "
    r"(?P<much>exactly |only |at least |at most |approximately |about )?(?P<what>.+)$",
    re.IGNORECASE,
)
_COUNTED = re.compile(
    r"\b(?:has|have|holds? (?:true )?for|is true for|are satisfied for|satisfied (?:by|for)|admits?|"
    r"contains?|occurs? for|can be (?:\w+ )?in|at (?:least|most))\s+"
    r"(?P<much>exactly |only |at least |at most |precisely |all )?(?P<what>.+)$",
    re.IGNORECASE,
)
_THINGS = "(?:solutions?|values?|numbers?|integers?|pairs?|sequences?|roots?|zeros?|limit)"
_WORDS = r"(?:\w+[ -]){0,4}"
_NONE = re.compile(
    r"\b(?:there (?:is|are|exists?) (?:no|not any|zero)\b|"
    rf"no (?:such )?{_WORDS}{_THINGS}\b.{{0,60}}?\b(?:exists?|satisf\w+|possible|works?)|"
    rf"(?:has|have|with) no {_WORDS}{_THINGS}|do(?:es)? not (?:exist|have (?:any|a))|"
    r"(?:it|this) is (?:not possible|impossible)|is (?:not|never) (?:periodic|possible)|cannot exist)",
    re.IGNORECASE,
)
_BUT = re.compile(
    r"\b(?:except|other than|besides|apart from|only|but|unless|however|trivial|if and only if|also)\b",
    re.IGNORECASE,
)


def claim_of(sentence: str) -> Claim | None:
    """The claim of a summary, or None where it isn't plain."""
    text = plain(sentence)
    if len(text) > 600 or not text:
        return None
    word = re.match(r"(yes|no)\b[,.;:]?\s*", text, re.IGNORECASE)
    if word and not re.match(r"no\s+(?:such|\w+)\s", text, re.IGNORECASE):
        return Claim(kind="yes" if word[1].lower() == "yes" else "no")
    nothing = _NONE.search(text)
    if nothing:
        # in `the number is 1, given that f(x) = x has no solutions` the verb before says something else
        stated_before = any(verb.end() <= nothing.start() for verb in _VERB.finditer(text))
        return None if stated_before or _BUT.search(text) else Claim(kind="none")
    if re.search(r"\binfinitely many\b|\binfinite number of\b", text, re.IGNORECASE):
        return Claim(kind="infinite")
    boxed = re.findall(r"\\boxed ?\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}", text)
    if boxed:
        return _claim(", ".join(boxed), approximate=False)
    found = _there(text) or _counted(text)
    return found if found is not None else _stated(text)


def plain(sentence: str) -> str:
    """One line without the delimiters of LaTeX mathematics, words for small numbers turned into digits."""
    text = re.sub(r"\\\(|\\\)|\\\[|\\\]|\$+", " ", sentence)
    text = text.replace("−", "-").replace("–", "-").replace("×", "*").replace("·", "*").replace("\\%", "%")
    text = re.sub(r"\\(?:left|right|displaystyle|,|;|!|quad)(?![a-z])", "", text)
    text = (
        re.sub(r"\\d?frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}", text)
        .replace("\\dfrac", "\\frac")
        .replace("\\tfrac", "\\frac")
    )
    text = " ".join(text.split())
    for value, name in enumerate(_NUMBERS):
        text = (
            re.sub(rf"\b{name}\b(?! of)", str(value), text)
            if name != "one"
            else re.sub(r"\bone\b(?! of| (?:can|must|would|could|side|way to))", "1", text)
        )
    text = re.sub(r"\b(\w|\d+) factorial(?: \(\1!\)|, or \1!)?", r"\1!", text)
    return re.sub(r"\s+([,.;:])", r"\1", text)


def _there(text: str) -> Claim | None:
    found = _THERE.match(text)
    if not found:
        return None
    chunk, rest = _leading(found["what"])
    if chunk is None or not re.match(r"\s*[a-z]", rest, re.IGNORECASE) or _joined(rest):
        return None
    return _claim(chunk, approximate=(found["much"] or "").strip() in ("approximately", "about"))


def _counted(text: str) -> Claim | None:
    found = _COUNTED.search(text)
    if not found:
        return None
    if (found["much"] or "").strip().lower() == "all" or re.match(
        r"(?:all|every)\b", found["what"], re.IGNORECASE
    ):
        return Claim(kind="all")
    chunk, rest = _leading(re.sub(r"^(?:the|a total of)\s+", "", found["what"]))
    if (
        chunk is None
        or not re.fullmatch(r"[\d,]+", chunk)
        or _joined(rest)
        or re.match(r"\s*[-+*/^=<>≤≥%]", rest)
    ):
        return None
    if not re.match(
        r"\s*(?:[.,;]|$|(?:of|distinct|different|positive|integer|real|possible|such|values?|solutions?|ways?|pairs?|numbers?)\b)",
        rest,
    ):
        return None
    return _claim(chunk, approximate=False)


def _stated(text: str) -> Claim | None:
    """``... is EXPRESSION``, or without such a verb ``... = EXPRESSION``, at the end or before a clause of
    explanation.
    """
    verbs = list(_VERB.finditer(text))
    if not verbs:
        _, equals, tail = text.rpartition("=")
        return _read(tail) if equals and "," not in tail else None
    ends = {len(text), *(cut.start() for cut in _CUT.finditer(text, verbs[0].end()))}
    for end in sorted(ends, reverse=True):
        said = text[:end].rstrip(" .,;:")
        last = [verb for verb in verbs if verb.end() <= len(said)]
        if last and (found := _read(said[last[-1].end() :])):
            return found
    return None


def _read(tail: str) -> Claim | None:
    approximate = bool(_APPROXIMATE.match(tail))
    return _claim(_APPROXIMATE.sub("", tail), approximate=approximate)


def _items(tail: str) -> list[str]:
    """The expressions of a tail that holds nothing else: one, or several joined by commas, `and`, `or`; else
    none.

    ``x = 1 and x = 2`` is a list; ``x = 1 and y = 2`` is one solution of two unknowns and not understood.
    """
    if re.match(r"an?\s", tail):
        return []
    tail = re.sub(
        r"\s*(?:units?|ways?|colou?rings?|%|percent|degrees|times|values?|numbers?|solutions?)$", "", tail
    )
    tail = re.sub(r"^(?:the (?:number|integer|value|expression)s? |either )", "", tail)
    parts = [part.strip() for part in re.split(r",?\s+(?:and|or)\s+|,\s+(?![^()]*\))", tail) if part.strip()]
    names = {part.rpartition("=")[0].strip() for part in parts if "=" in part}
    if len(names) > 1 or any(re.search(r"[<>≤≥≠]|\\(?:leq?|geq?|neq?)\b", part) for part in parts):
        return []
    values = [part.rpartition("=")[2].strip() for part in parts]
    return (
        values if all(_is_expression(value) for value in values) and all(map(_is_expression, names)) else []
    )


def _is_expression(part: str) -> bool:
    words = re.findall(r"(?<!\\)\b[A-Za-z]{2,}\b", re.sub(r"\\[A-Za-z]+", " ", part))
    return (
        bool(part)
        and len(part) <= 120
        and all(word in _FUNCTIONS for word in words)
        and bool(re.search(r"[\w]", part))
    )


def _leading(text: str) -> tuple[str | None, str]:
    """(the expression that a text begins with, the rest)."""
    found = re.match(
        r"(?:\\[a-zA-Z]+|[\d.,]*\d|[A-Za-z](?![A-Za-z])|(?:sqrt|floor|C)(?=\()|[-+*/^_(){}\[\]!=\\ ])+", text
    )
    if not found:
        return None, text
    chunk = found.group().rstrip(" ,(")
    return (chunk or None), text[len(chunk) :]


def _joined(rest: str) -> bool:
    """Whether an expression goes on with words or signs that change its value."""
    words = "or|and|to|through|choose|times|plus|minus|factorial|percent|million|out of"
    return bool(re.match(rf"\s*(?:,? ?(?:{words})\b|[-+*/^(])", rest))


def _claim(chunk: str, *, approximate: bool) -> Claim | None:
    items = _items(chunk.strip(" .,;:"))
    if not items:
        return None
    return _list(items, approximate) if len(items) > 1 else Claim("value", (latex(items[0]),), approximate)


def _list(items: list[str], approximate: bool) -> Claim:
    return Claim("list", tuple(latex(item) for item in items), approximate)
