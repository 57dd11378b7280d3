"""Right, wrong, or unsure: a claim against the gold answer. Unsure answers make no pairs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from llmfw.core.data.champ.extract import Claim, claim_of
from llmfw.core.verifiers.equal import approximates, equal
from llmfw.core.verifiers.typed import latex

Verdict = Literal["right", "wrong", "unsure"]
GoldKind = Literal["value", "list", "yes", "no", "none", "unknown"]
VERSION = 2
"""Raised when a verdict may change: cached verdicts are then made anew."""


@dataclass(frozen=True)
class Gold:
    """A gold answer. ``forms`` are equivalent LaTeX expressions of a value, or the members of a list."""

    kind: GoldKind
    forms: tuple[str, ...] = ()
    all_of_them: bool = False
    """The value counts everything there is (``100 (i.e., all values)``)."""
    count: bool = False
    """The value counts things, so that ``there are none`` says 0."""


_NOTHING = re.compile(
    r"^(?:no\s\w|such a sequence is not|it is not possible|the (?:sequence|limit) does not|there are no)",
    re.IGNORECASE,
)
_AROUND = re.compile(
    r"^the limit exists and is equal to |^the only possible value for the limit is |"
    r" is the only possible value$|^at most (?=0)|"
    r" (?:values?|roots?|pairs?|integer-valued (?:zeros?|roots?))$",
    re.IGNORECASE,
)


@lru_cache(maxsize=1000)
def gold_of(answer: str, problem: str) -> Gold:
    """What a gold answer says; ``unknown`` where it isn't one expression, a plain list, yes, no, or that
    nothing exists.
    """
    text = re.sub(r"\s*\((?:i\.e\.|none|no )[^()]*(?:\([^()]*\)[^()]*)*\)\s*$", "", answer).strip()
    if text.lower() in ("yes", "no"):
        return Gold("yes" if text.lower() == "yes" else "no")
    if _NOTHING.search(text):
        return Gold("none")
    if problem.startswith("Factorize") or "[" in text or "..." in text:
        return Gold("unknown")  # a polynomial equals its factors: equivalence can't judge a factorisation
    forms = re.split(r",? or (?:equivalently|an equivalent form such as|approximately [\d.]+%) ?", text)
    bare = [_AROUND.sub("", form).strip() for form in forms if form.strip()]
    if any(
        re.search(r"[A-Za-z]{3,}", re.sub(r"\b(?:sqrt|floor|sum)\b", "", form)) or "=" in form or "±" in form
        for form in bare
    ):
        members = re.split(r", | and ", bare[0])
        if len(members) > 1 and all(re.fullmatch(r"-?\d+", member) for member in members):
            return Gold("list", tuple(members))
        return Gold("unknown")
    if len(bare) == 1 and re.search(r", | and ", bare[0]) and "(" not in bare[0]:
        members = re.split(r", | and ", bare[0])
        return Gold("list", tuple(latex(member) for member in members))
    counts = bool(re.search(r"\bhow many\b|\bnumber of\b", problem, re.IGNORECASE))
    return Gold(
        "value", tuple(latex(form) for form in bare), "i.e., all" in answer and "except" not in answer, counts
    )


def judge(answer: str, problem: str, summary: str) -> Verdict:
    """The verdict on a summary's claim, given the gold answer and the problem's text."""
    gold = gold_of(answer, problem)
    claim = claim_of(summary)
    if claim is None or gold.kind == "unknown":
        return "unsure"
    if gold.kind in ("yes", "no"):
        return "unsure" if claim.kind not in ("yes", "no") else _verdict(claim.kind == gold.kind)
    if gold.kind == "none":
        return _against_nothing(claim)
    if gold.kind == "list":
        return _against_list(gold, claim)
    return _against_value(gold, claim)


def _verdict(right: bool) -> Verdict:
    return "right" if right else "wrong"


def _against_nothing(claim: Claim) -> Verdict:
    if claim.kind in ("none", "no"):
        return "right"
    if claim.kind == "value" and equal("0", claim.expressions[0]):
        return "unsure"  # `is 0` may be a count or a solution
    return "wrong" if claim.kind in ("value", "list", "infinite", "yes") else "unsure"


def _against_list(gold: Gold, claim: Claim) -> Verdict:
    if claim.kind not in ("list", "value"):
        return "wrong" if claim.kind == "none" else "unsure"
    same = approximates if claim.approximate else equal
    table = [[same(member, said) for said in claim.expressions] for member in gold.forms]
    if any(cell is None for row in table for cell in row):
        return "unsure"
    if claim.kind == "value":
        return "unsure" if any(row[0] for row in table) else "wrong"
    return _verdict(
        all(any(row) for row in table) and all(any(column) for column in zip(*table, strict=True))
    )


def _against_value(gold: Gold, claim: Claim) -> Verdict:
    if claim.kind == "all":
        return "right" if gold.all_of_them else "unsure"
    if claim.kind == "none":
        zero = equal("0", gold.forms[0])
        return "unsure" if zero is None or (zero and not gold.count) else _verdict(bool(zero))
    if claim.kind not in ("value", "list"):
        return "wrong" if claim.kind == "infinite" and gold.count else "unsure"
    said = [_any_form(gold, expression, claim.approximate) for expression in claim.expressions]
    if None in said:
        return "unsure"
    if claim.kind == "list" and any(said) and not all(said):
        return "unsure"
    return _verdict(all(said))


def _any_form(gold: Gold, expression: str, approximate: bool) -> bool | None:
    same = approximates if approximate else equal
    found = [same(form, expression) for form in gold.forms]
    if True in found:
        return True
    return None if None in found else False
