"""The vote on a text that says nothing of itself: parsers, signs, a model."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..languages import DATA, languages

UNKNOWN = "unknown"
PARSED = 200_000
"""Characters that a parser is given at most."""
DEEP = 100
"""Brackets within brackets that a parser is given at most."""
SEARCHED, LINE = 16_384, 500
"""Characters that are searched for signs, and of each line; lines without text are left out."""
Vote = tuple[str, float, str]
"""Language, confidence, what decided."""


@dataclass(frozen=True)
class Evidence:
    """data/evidence/: signs with their weights and those for whom they count, families with their plain
    member, the share of lines that a kind of text must have, the names of what isn't of the table, and the
    numbers of the vote.
    """

    signs: Sequence[tuple[re.Pattern[str], float, tuple[str, ...]]]
    families: Sequence[tuple[tuple[str, ...], str]]
    shares: Mapping[str, float]
    names: frozenset[str]
    numbers: Mapping[str, float]


@cache
def evidence() -> Evidence:
    """The table, its expressions compiled."""
    table = {
        key: row
        for file in sorted((DATA / "evidence").glob("*.toml"))
        for key, row in tomllib.loads(file.read_text(encoding="utf-8")).items()
    }
    groups = [(tuple(row["of"]), row["signs"]) for row in table["families"]]
    groups += [((lang,), table[lang]["signs"]) for lang in languages() if lang in table]
    groups += [((f"not {kind}",), row["signs"]) for kind, row in table["others"].items()]
    silent = {
        "prose",
        "markdown",
        *table["others"]["prose"]["aliases"],
        *table["others"]["markdown"]["aliases"],
    }
    names = {word for kind, row in table["others"].items() for word in (kind, *row.get("aliases", ()))}
    return Evidence(
        signs=[
            (re.compile(sign, re.MULTILINE), float(weight), whose)
            for whose, signs in groups
            for weight, sign in signs
        ],
        families=[(tuple(row["of"]), row["plain"]) for row in table["families"]],
        shares={f"not {kind}": row["share"] for kind, row in table["others"].items() if "share" in row},
        names=frozenset(names - silent),
        numbers={key: float(value) for key, value in table.items() if isinstance(value, int | float)},
    )


def vote(code: str, *, model: bool = True) -> Vote:
    """Who leads. ``magika`` is asked where the others leave doubt."""
    numbers = evidence().numbers
    plain = re.sub(r"\r\n?", "\n", code[:PARSED]).lstrip("\ufeff")
    if not plain.strip():
        return UNKNOWN, 1.0, "nothing"
    scores = points(plain)
    if len(code) <= PARSED and (said := python_says(plain)):
        scores["python"] += numbers[said]
    if is_json(plain):
        scores["not json"] += numbers["json"]
    first, lead = _leader(scores)
    surely = lead >= numbers["sure"] / 3 and max(scores.values()) >= numbers["sure"]
    if surely or not model or (heard := _magika(plain)) is None:
        return first, _confidence(lead), "evidence"
    whose, certain = heard
    scores[whose] += numbers["model"] * certain * min(1.0, len(plain) / numbers["whole"])
    second, lead = _leader(scores)
    return second, _confidence(lead), "evidence" if second == first else "magika"


def points(plain: str) -> dict[str, float]:
    """Sums of the signs that were found, by language, and by ``not KIND`` for other kinds of text."""
    table = evidence()
    searched = "\n".join(line[:LINE] for line in plain[:SEARCHED].split("\n") if line.strip())
    scores: dict[str, float] = defaultdict(float)
    for sign, weight, whose in table.signs:
        if sign.search(searched):
            for one in whose:
                scores[one] += weight
            for members, first in table.families:
                if members == whose:
                    scores[f"plain {first}"] = table.numbers["plain"]
    for kind, share in table.shares.items():
        if _share([sign for sign, _, whose in table.signs if kind in whose], searched) < share:
            scores.pop(kind, None)
    for _, first in table.families:
        scores[first] += scores.pop(f"plain {first}", 0.0)
    return scores


def _share(signs: Sequence[re.Pattern[str]], searched: str) -> float:
    """The share of lines that have one of the signs."""
    lines = searched.split("\n")
    return sum(any(sign.search(line) for sign in signs) for line in lines) / len(lines)


def _leader(scores: Mapping[str, float]) -> tuple[str, float]:
    """Who leads, and by how many points; ``unknown`` by those that all languages lack."""
    needed = evidence().numbers["needed"]
    ours = {lang: scores.get(lang, 0.0) for lang in languages()}
    best = max(ours, key=lambda lang: ours[lang])
    other = max((value for whose, value in scores.items() if whose.startswith("not ")), default=0.0)
    if ours[best] < needed or other >= ours[best]:
        return UNKNOWN, max(needed, other) - ours[best]
    return best, ours[best] - max(other, *(value for lang, value in ours.items() if lang != best))


def _confidence(lead: float) -> float:
    """A half without a lead, three quarters at two points, never more than 0.97."""
    return min(0.97, 1 - float(0.5 ** (1 + lead / 2)))


_BLOCKS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.For, ast.While, ast.If, ast.With, ast.Try)
_OWN = (*_BLOCKS, ast.ListComp, ast.DictComp, ast.SetComp, ast.GeneratorExp, ast.JoinedStr, ast.Lambda)
_COMMON = (ast.Assign, ast.AugAssign, ast.Call, ast.Import, ast.ImportFrom)


def python_says(code: str) -> str:
    """What Python's parser makes of a text: ``parsed``; ``bland``, statements that other languages have too;
    ``broken``; nothing for bare expressions, and where the text is too long or too deep to be parsed here.
    """
    if len(code) > PARSED or _depth(code) > DEEP:
        return ""
    # unknown escapes in strings are put out of the way: the parser would warn of them
    tame = re.sub(r"\\(\\|[^\n\r'\"\\])", "__", code)
    try:
        kinds = {type(node) for node in ast.walk(ast.parse(tame))}
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "broken"
    if kinds.intersection(_OWN):
        return "parsed"
    return "bland" if kinds.intersection(_COMMON) else ""


def is_json(plain: str) -> bool:
    """Whether it's a JSON object or list, or one in each line."""
    if not plain.lstrip().startswith(("{", "[")) or _depth(plain) > DEEP:
        return False
    return any(_all_json(texts) for texts in ([plain], plain.strip().split("\n")))


def _all_json(texts: Sequence[str]) -> bool:
    try:
        return all(isinstance(json.loads(text), dict | list) for text in texts)
    except (ValueError, RecursionError):
        return False


def _depth(code: str) -> int:
    depth = most = 0
    for bracket in re.findall(r"[()\[\]{}]", code):
        depth = depth + 1 if bracket in "([{" else max(0, depth - 1)
        most = max(most, depth)
    return most


@cache
def _model() -> Any:
    try:
        from magika import Magika
    except ImportError:
        return None
    return Magika()


def has_model() -> bool:
    """Whether ``magika`` is installed."""
    return _model() is not None


def model_alone(text: str) -> str:
    """Whom ``magika`` takes it for, by the table of languages, however uncertain it is.

    Raises:
        RuntimeError: it isn't installed.
    """
    if (model := _model()) is None:
        raise RuntimeError("magika isn't installed: pip install magika")
    label = str(model.identify_bytes(text.encode("utf-8", "replace")).prediction.dl.label)
    return _whose(label) or UNKNOWN


def _whose(label: str) -> str:
    """The language of a label of magika's; "" for one that isn't of the table."""
    return next((lang.id for lang in languages().values() if label in lang.magika), "")


def _magika(plain: str) -> tuple[str, float] | None:
    """Whom the model votes for, and how certain it is."""
    model = _model()
    if model is None:
        return None
    found = model.identify_bytes(plain.encode("utf-8", "replace")).prediction
    label = str(found.dl.label)
    if label in ("undefined", "unknown", "empty", "h", "hpp"):  # says nothing, or not which of two
        return None
    return _whose(label) or "not by magika", float(found.score)
