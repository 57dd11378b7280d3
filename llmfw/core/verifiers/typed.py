"""Mathematics as people type it, as LaTeX."""

from __future__ import annotations

import re

_REPEATING = re.compile(r"(\d+)\.(\d*)\\(?:overline|bar|dot)\s*(?:\{(\d+)\}|(\d))")


def latex(text: str) -> str:
    """LaTeX of an expression as people type it: ``2^(n-1)``, ``C(10, 5)``, ``sqrt(3)/3``, ``floor(n/2)!``;
    LaTeX stays as it is, but for repeating decimals, which become fractions.
    """
    text = text.strip().strip(".,;:").replace("**", "^").replace("√(", "sqrt(")
    for name, opening, closing in (
        ("sqrt", r"\sqrt{", "}"),
        ("floor", r"\lfloor ", r"\rfloor "),
        ("ceil", r"\lceil ", r"\rceil "),
    ):
        text = _call(text, rf"(?<!\\){name}(?:ing)?\s*\(", opening, closing)
    text = re.sub(r"√(\w+)", r"\\sqrt{\1}", text)
    while (found := re.search(r"(?<![A-Za-z\\])C\(", text)) and (end := _closing(text, found.end() - 1)) >= 0:
        inside = text[found.end() : end]
        if inside.count(",") != 1:
            break
        upper, lower = inside.split(",")
        text = f"{text[: found.start()]}\\binom{{{upper.strip()}}}{{{lower.strip()}}}{text[end + 1 :]}"
    text = _call(text, r"\^\(", "^{", "}")
    text = _call(text, r"_\(", "_{", "}")
    text = re.sub(r"\^(-?\d{2,}|-\d)", r"^{\1}", text)
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    text = _REPEATING.sub(_fraction, text)
    return text.replace("*", r"\cdot ")


def _fraction(decimal: re.Match[str]) -> str:
    """0.1\\overline{6} is (16 - 1) / 90."""
    whole, once, many, digit = decimal.groups()
    again = many or digit
    top = int(whole + once + again) - int(whole + once)
    return rf"\frac{{{top}}}{{{10 ** len(once) * (10 ** len(again) - 1)}}}"


def _call(text: str, pattern: str, opening: str, closing: str) -> str:
    while (found := re.search(pattern, text)) and (end := _closing(text, found.end() - 1)) >= 0:
        text = text[: found.start()] + opening + text[found.end() : end] + closing + text[end + 1 :]
    return text


def _closing(text: str, opening: int) -> int:
    """Where the parenthesis at ``opening`` is closed, or -1."""
    depth = 0
    for index in range(opening, len(text)):
        depth += (text[index] == "(") - (text[index] == ")")
        if depth == 0:
            return index
    return -1
