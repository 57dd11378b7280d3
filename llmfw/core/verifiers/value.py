"""What an answer says beside its value: the name it's given, and its unit."""

from __future__ import annotations

import re

from llmfw.core.verifiers.extract import plain
from llmfw.core.verifiers.match import matches, normalised, number_of

_NAMED = re.compile(r"(?:[A-Za-z](?:_\{?\w+\}?)?(?:\([A-Za-z]\))?|\\[a-z]+)\s*=\s*(?=[^=\s])")
_NUMBER = r"[-+]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:/\d+)?|[-+]?\\[dt]?frac\s*\{[^{}]*\}\s*\{[^{}]*\}"
_MONEY = re.compile(r"(?:\\?\$|€|£|USD|EUR|GBP)\s*")
_UNIT = re.compile(
    rf"(?P<value>{_NUMBER})"
    r"(?P<unit>\s*\\?%|\s*\^?\{?\s*(?:\\circ|°)\s*\}?\s*[CF]?"
    r"|(?:\\[,;: ]|~|\s)*\\(?:text|mathrm|mbox)\s*\{[^{}]*\}(?:\^\{?[23]\}?)?"
    r"|(?P<apart>[\s-]*)(?P<word>[A-Za-z]{2,})(?:[ /-][A-Za-z]+){0,3}(?:\^?[23]|[²³])?)"
)
_LETTER = re.compile(rf"(?P<value>{_NUMBER})(?P<unit>\s*[A-Za-z])")
_NO_UNITS = frozenset(
    "hundred thousand million billion trillion dozen pi sqrt infinity or and to squared cubed factorial "
    "choose times plus minus over mod half third quarter more less not except if unless when".split()
)
"""Words behind a number that change its value."""
_LONG = {
    "m": "meter", "cm": "centimeter", "mm": "millimeter", "km": "kilometer", "kg": "kilogram", "g": "gram",
    "s": "second", "sec": "second", "min": "minute", "h": "hour", "hr": "hour", "l": "liter",
    "ml": "milliliter", "ft": "foot", "feet": "foot", "inches": "inch", "in": "inch", "lb": "pound",
    "lbs": "pound", "°": "degree", "circ": "degree", "%": "percent", "$": "dollar", "usd": "dollar",
    "eur": "euro", "€": "euro",
}  # fmt: skip
_TRUTH = re.compile(r"(yes|no|true|false)\b", re.IGNORECASE)
_OPPOSITE = {"yes": "no", "no": "yes", "true": "false", "false": "true"}


def unnamed(text: str) -> str:
    """The text without the name in front: ``x = 5`` is ``5``."""
    named = _NAMED.match(text)
    return text[named.end() :].strip() if named and "=" not in text[named.end() :] else text


def with_unit(text: str, *, letters: bool = False) -> tuple[str, str]:
    """(value, unit) of a number with a unit behind or a currency in front; unit is empty where there's none.

    ``12 cm``, ``12\\text{ cm}``, ``$12``, ``50\\%``, ``30^\\circ`` have one; ``12 million``, ``2\\pi`` have
    none. One letter is a unit only with ``letters``: ``5 m`` may be five times an unknown.
    """
    money = _MONEY.match(text)
    if money and number_of(text[money.end() :]) is not None:
        return text[money.end() :], _unit(money.group())
    found = _UNIT.fullmatch(text) or (letters and _LETTER.fullmatch(text))
    if not found or _NO_UNITS & set(re.findall(r"[a-z]+", found["unit"].lower())):
        return text, ""
    word = found.groupdict().get("word")
    if word and word.lower() not in _LONG and (len(word) < 3 or not found["apart"]):
        return text, ""  # unknowns, as in 2xy
    return found["value"], _unit(found["unit"])


def _unit(text: str) -> str:
    """A unit's name in full, in the singular."""
    bare = re.sub(r"\\(?:text|mathrm|mbox)|\\[,;: ]|[{}~^\\]", " ", text).strip(" -")
    name = normalised(bare)
    name = _LONG.get(name, name).replace("metre", "meter").replace("litre", "liter")
    return name if name.endswith("ss") else name.removesuffix("s")


def alike(gold: str, claim: str) -> tuple[str, str] | None:
    """Both without names and units; None where they have units that differ. A unit that only one of them
    names is taken for granted.
    """
    gold, claim = plain(gold), plain(claim)
    if "=" not in gold or "=" not in claim:
        gold, claim = plain(unnamed(gold)), plain(unnamed(claim))
    letters = bool(with_unit(gold)[1] or with_unit(claim)[1])
    (left, one), (right, other) = with_unit(gold, letters=letters), with_unit(claim, letters=letters)
    return None if one and other and one != other else (plain(left), plain(right))


def same_value(gold: str, claim: str) -> bool:
    """Whether two answers are the same words or the same number, names and units aside; after ``Yes``,
    ``No``, ``True`` and ``False`` an explanation may follow.
    """
    if matches(claim, gold):
        return True
    said = _TRUTH.match(plain(claim))
    if said and _TRUTH.fullmatch(plain(gold)):
        return matches(said[1], plain(gold))
    bare = alike(gold, claim)
    return bare is not None and matches(bare[1], bare[0])


def another(gold: str) -> str:
    """An answer that surely isn't ``gold``: the next number, the opposite, or other words."""
    opposite = opposite_of(gold)
    if opposite is not None:
        return opposite
    number = number_of(with_unit(plain(unnamed(plain(gold))))[0])
    return f"{plain(gold)} + 1" if number is None else str(number + 1)


def opposite_of(gold: str) -> str | None:
    """No of yes, false of true, in the same spelling, whatever explains it; None of anything else."""
    found = _TRUTH.match(plain(gold))
    if found is None:
        return None
    word = _OPPOSITE[found[1].lower()]
    return word.upper() if found[1].isupper() else word.capitalize() if found[1][0].isupper() else word
