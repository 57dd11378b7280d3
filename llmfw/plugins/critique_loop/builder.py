"""Critiques to learn from (the paper's AutoMathCritique): flawed answers made in three ways, annotated, and
filtered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmfw import LlmfwError, Row
from llmfw.core.data import STEP_ERRORS, answer_of, stable_hash
from llmfw.core.generation import Attempt, Rollouts

from .asking import fits, to_annotator, to_injector, to_refine
from .critics import ORACLE
from .errors import CritiqueError
from .functional import enough
from .grammar import Critique, Form, normal, parse, render
from .settings import CritiqueLoopConfig
from .steps import injected, split, true_critique

RG1, RG2, RG3, GIVEN = "RG1", "RG2", "RG3", "right"
_HOT = 1.0
"""Temperature at which RG2 goes on from right steps."""


@dataclass(frozen=True)
class Answered:
    """A response and how it came about. ``told``: the index of its first wrong step, where its construction
    knows it; ``origin`` is ``right`` for a right response.
    """

    row: Row
    response: str
    right: bool
    origin: str
    told: int | None = None
    kind: str | None = None


def build(
    config: CritiqueLoopConfig, rollouts: Rollouts, rows: Sequence[Row], annotator: Any
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """(records, numbers): flawed responses and a share of right ones, each with its critique.

    A record holds id, problem, question, answer, response, steps, critique, step_labels, first_error,
    final_label, origin, error_type. Dropped are critiques that can't be read (``build/unparsed``), that find
    another first error than was put in (``build/flagged``), or whose verdict isn't the verifier's
    (``build/disagree``, with ``hard_filter``).

    Args:
        annotator: the policy that writes critiques; None: the truth about chains does.

    Raises:
        CritiqueError: NO-FLAWS, NO-CRITIQUES.
        LlmfwError: NO-CHAIN, where the truth about chains annotates.
    """
    flawed, right = responses(config, rollouts, rows, annotator)
    if not flawed:
        raise CritiqueError(
            "NO-FLAWS",
            f"none of the answers to {len(rows)} problems is wrong and has an end: a critic has nothing to "
            "learn",
            mend="give harder problems, or raise critique_loop.rg1, rg2 or rg3",
            key="critique_loop.rg1",
        )
    wanted = round(len(flawed) * config.right_share / (1 - config.right_share))
    chosen = [*flawed, *right[:wanted]]
    records, counts = annotated(config, rollouts, chosen, annotator)
    if not records:
        raise _none_left(config, f"of {len(chosen)} annotated critiques", counts)
    origins = Counter(record["origin"] for record in records)
    notes = {f"build/{name}": float(count) for name, count in sorted({**counts, **origins}.items())}
    return records, {"build/records": float(len(records)), **notes}


def responses(
    config: CritiqueLoopConfig, rollouts: Rollouts, rows: Sequence[Row], annotator: Any
) -> tuple[list[Answered], list[Answered]]:
    """(flawed, right) responses that came to their end, each text once a problem."""
    sampled = rollouts.attempt(rows, purpose="rg1", samples=config.rg1) if config.rg1 else [[] for _ in rows]
    good = {
        str(row["id"]): next((one.text for one in group if one.right), answer_of(row))
        for row, group in zip(rows, sampled, strict=True)
    }
    flat = [attempt for group in sampled for attempt in group]
    flawed = [Answered(one.row, one.text, False, RG1) for one in flat if _wrong(one)]
    right = [Answered(one.row, one.text, True, GIVEN) for one in flat if one.right]
    known = {str(one.row["id"]) for one in right}
    right += [Answered(row, answer_of(row), True, GIVEN) for row in rows if str(row["id"]) not in known]
    flawed += _continued(config, rollouts, rows, good) if config.rg2 else []
    flawed += _put_in(config, rollouts, rows, good, annotator) if config.rg3 else []
    in_turn = sorted(_once(right), key=lambda one: stable_hash("right", rollouts.seed, str(one.row["id"])))
    return _once(flawed), in_turn


def _once(answered: Sequence[Answered]) -> list[Answered]:
    """Each text of a problem once, white space apart, in order."""
    first: dict[tuple[str, str], Answered] = {}
    for one in answered:
        first.setdefault((str(one.row["id"]), normal(one.response)), one)
    return list(first.values())


def _continued(
    config: CritiqueLoopConfig, rollouts: Rollouts, rows: Sequence[Row], good: dict[str, str]
) -> list[Answered]:
    """RG2: the first steps of a right answer, continued at temperature 1 until it goes wrong."""
    lines = [good[str(row["id"])].splitlines() for row in rows]
    several = [(row, mine) for row, mine in zip(rows, lines, strict=True) if len(mine) > 1]
    kept = [
        1 + stable_hash("kept steps", rollouts.seed, str(row["id"])) % (len(mine) - 2) if len(mine) > 2 else 0
        for row, mine in several
    ]
    openings = [
        "".join(f"{line}\n" for line in mine[:at]) for (_, mine), at in zip(several, kept, strict=True)
    ]
    groups = replace(rollouts, temperature=_HOT).attempt(
        [row for row, _ in several],
        purpose="rg2",
        samples=config.rg2,
        first=config.rg1,
        prefixes=openings,
    )
    return [
        Answered(one.row, one.text, False, RG2, _parting(one.text.splitlines(), mine))
        for (_, mine), group in zip(several, groups, strict=True)
        for one in group
        if _wrong(one)
    ]


def _put_in(
    config: CritiqueLoopConfig,
    rollouts: Rollouts,
    rows: Sequence[Row],
    good: dict[str, str],
    annotator: Any,
) -> list[Answered]:
    """RG3: a wrong step of a named kind is put in, and the actor goes on from it."""
    if annotator is None:
        made = [injected(row, rollouts.seed) for row in rows]
    else:
        made = _written_wrong(rollouts, rows, good, annotator)
    groups = rollouts.attempt(
        rows,
        purpose="rg3",
        samples=config.rg3,
        first=config.rg1 + config.rg2,
        prefixes=["".join(f"{line}\n" for line in lines) for lines, _, _ in made],
    )
    return [
        Answered(one.row, one.text, False, RG3, at, kind)
        for (_, at, kind), group in zip(made, groups, strict=True)
        for one in group
        if _wrong(one)
    ]


def _written_wrong(
    rollouts: Rollouts, rows: Sequence[Row], good: dict[str, str], annotator: Any
) -> list[tuple[list[str], int, str]]:
    """The same as ``injected``, where another model writes the wrong step."""
    asked = []
    for row in rows:
        steps, _ = split(good[str(row["id"])])
        at = stable_hash("place", rollouts.seed, str(row["id"])) % max(1, len(steps))
        kind = STEP_ERRORS[stable_hash("kind", rollouts.seed, str(row["id"])) % len(STEP_ERRORS)]
        asked.append((steps[:at], at, kind))
    told = rollouts.ledger.generate(
        annotator,
        [to_injector(row, lines, kind) for row, (lines, _, kind) in zip(rows, asked, strict=True)],
        purpose="inject",
        temperature=_HOT,
        seed=rollouts.seed,
        ids=[f"inject/{row['id']}" for row in rows],
    )
    return [
        ([*lines, next(iter(one.text.strip().splitlines()), "")], at, kind)
        for (lines, at, kind), one in zip(asked, told, strict=True)
    ]


def annotated(
    config: CritiqueLoopConfig, rollouts: Rollouts, answered: Sequence[Answered], annotator: Any
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """(records, how many were dropped and why)."""
    form: Form = "compact" if config.form == "compact" else "paper"
    if annotator is None:
        read = [_true(config, one, form) for one in answered]
    else:
        prompts = [to_annotator(one.row, one.response, one.told, one.kind, form) for one in answered]
        texts = rollouts.ledger.generate(annotator, prompts, purpose="annotate", temperature=0.0)
        read = [parse(text.text, form) for text in texts]
    counts = {"unparsed": 0, "flagged": 0, "disagree": 0}
    records = []
    numbers: Counter[str] = Counter()
    for one, critique in zip(answered, read, strict=True):
        # counted within the problem: random numbers are drawn for the record's name
        number = numbers[str(one.row["id"])]
        numbers[str(one.row["id"])] += 1
        reason = _fault(one, critique, hard=config.hard_filter)
        if reason is not None or critique is None:
            counts[reason or "unparsed"] += 1
            continue
        records.append(record(one, critique, form, number))
    return records, counts


def record(one: Answered, critique: Critique, form: Form, number: int) -> dict[str, Any]:
    """A response and its critique as the run keeps them."""
    return {
        "id": f"{one.row['id']}.c{number}",
        "problem": str(one.row["id"]),
        "question": one.row["prompt"],
        "answer": str(one.row["answer"]),
        "response": one.response,
        "steps": split(one.response)[0],
        "critique": render(critique, form),
        "step_labels": critique.labels,
        "first_error": critique.first_error,
        "final_label": critique.correct,
        "origin": one.origin,
        "error_type": one.kind,
    }


def filtered(
    config: CritiqueLoopConfig,
    rollouts: Rollouts,
    records: Sequence[dict[str, Any]],
    rows: Sequence[Row],
    form: Form,
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The critiques with which the actor comes to at least ``filter_keep`` right refinements of
    ``filter_samples``; each record then tells of it as ``mc``. ``filter_keep=0`` asks for none.

    Raises:
        CritiqueError: NO-CRITIQUES: none is left.
    """
    least, n = config.filter_keep, config.filter_samples
    if not least:
        return list(records), {"filter/kept": 1.0}
    row_of = {str(row["id"]): row for row in rows}
    prompts = [to_refine(row_of[one["problem"]], one["response"], one["critique"], form) for one in records]
    short = [at for at, prompt in enumerate(prompts) if fits(rollouts.policy, prompt)]
    groups = rollouts.attempt(
        # each record is asked for with random numbers of its own
        [{**row_of[records[at]["problem"]], "id": records[at]["id"]} for at in short],
        purpose="filter",
        samples=n,
        prompts=[prompts[at] for at in short],
    )
    kept, rights = [], []
    for at, group in zip(short, groups, strict=True):
        right = sum(one.right for one in group)
        rights.append(right / n)
        if enough(right, least):
            kept.append({**records[at], "mc": {"n": n, "n_correct": right}})
    notes = {
        "filter/kept": len(kept) / max(1, len(records)),
        "filter/right": sum(rights) / max(1, len(rights)),
        "filter/too_long": float(len(records) - len(short)),
    }
    if not kept:
        raise _none_left(config, f"with {least} right refinements of {n}", {"critiques": len(records)})
    return kept, notes


def _none_left(config: CritiqueLoopConfig, what: str, counts: dict[str, int]) -> LlmfwError:
    told = ", ".join(f"{count} {name}" for name, count in counts.items())
    return CritiqueError(
        "NO-CRITIQUES",
        f"{what} none is left for the critic to learn ({told})",
        mend="look whether the annotator keeps to the grammar (critique_loop.form), lower "
        "critique_loop.filter_keep, or let the model learn to refine first (critique_loop.feedback)",
        key="critique_loop.filter_keep",
    )


def _true(config: CritiqueLoopConfig, one: Answered, form: Form) -> Critique | None:
    critique = true_critique(one.row, one.response, explain=config.explain, after_error=config.after_error)
    try:
        render(critique, form)
    except CritiqueError:
        return None
    return critique


def _fault(one: Answered, critique: Critique | None, *, hard: bool) -> str | None:
    """Why a critique isn't learnt; None: it is."""
    if critique is None:
        return "unparsed"
    if one.told is not None and critique.first_error != one.told:
        return "flagged"
    return "disagree" if hard and critique.correct != one.right else None


def _wrong(attempt: Attempt) -> bool:
    """Whether it's a whole answer, and its verifier calls it wrong."""
    return attempt.finished and attempt.verdict.status in ("wrong", "unparsed")


def _parting(lines: Sequence[str], right: Sequence[str]) -> int | None:
    """The first step in which a response parts from a right one; None where only its final answer does."""
    steps, _ = split("\n".join(lines))
    truth, _ = split("\n".join(right))
    return next((at for at, step in enumerate(steps) if at >= len(truth) or step != truth[at]), None)


def annotator_of(config: CritiqueLoopConfig, run: Any) -> Any:
    """The policy that annotates; None: the truth about chains does."""
    return None if config.annotator == ORACLE else run.policy(config.annotator)
