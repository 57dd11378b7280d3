"""The mix that is trained: which wrong steps are put where, how many corrected solutions stand beside the
plain ones, and the records of both. Plain Python.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmfw import Row
from llmfw.core.data import answer_of, stable_hash

from .pool import Pool, Wrong
from .segments import Segment, gold, text_of, to_record, trained_spans
from .solution import lines_of, steps_of


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A solution to be written with these wrong steps; ``variant`` tells those of one problem apart."""

    row: Row
    wrong: Mapping[int, Wrong]
    variant: int


def drafts(rows: Sequence[Row], pool: Pool, errors: int, seed: int) -> list[Draft]:
    """All different ways to put up to ``errors`` wrong steps into each solution, first one of each problem.

    A variant's first place is drawn uniformly (by hash) among the problem's places that have wrong steps, so
    that errors don't come early by habit; further variants take the other places and steps in turn.
    """
    found: list[Draft] = []
    for row in rows:
        name = str(row["id"])
        places = [at for at in range(len(steps_of(row))) if pool.get((name, at))]
        places.sort(key=lambda at, name=name: stable_hash("place", seed, name, at))  # type: ignore[misc]
        seen: set[frozenset[tuple[int, str]]] = set()
        for turn in range(len(places) * max((len(pool[name, at]) for at in places), default=0)):
            depth, first = divmod(turn, len(places))
            among = (places[first:] + places[:first])[:errors]
            chosen = {at: pool[name, at][depth] for at in among if depth < len(pool[name, at])}
            key = frozenset((at, wrong.text) for at, wrong in chosen.items())
            if places[first] in chosen and key not in seen:
                found.append(Draft(row=row, wrong=dict(sorted(chosen.items())), variant=len(seen)))
                seen.add(key)
    return sorted(
        found,
        key=lambda one: (one.variant, stable_hash("mix", seed, one.row["id"], one.variant), one.row["id"]),
    )


def wanted(plain: int, share: float, available: int) -> int:
    """Corrected solutions beside ``plain`` plain ones, so that they are ``share`` of all; no more than there
    are. A share of 1 takes all of them.
    """
    asked = available if share >= 1 else round(plain * share / (1 - share))
    return min(asked, available)


def plain_rows(rows: Sequence[Row], share: float) -> list[Row]:
    """The problems' own solutions as records, under the problems' ids; none where ``share`` is 1."""
    kept = rows if share < 1 else rows[:0]
    return [
        {
            "id": row["id"], "prompt": row["prompt"], "completion": answer_of(row), "problem": row["id"],
            "segments": to_record(gold(lines_of(row))), "n_errors": 0, "source": "plain",
        }
        for row in kept
    ]  # fmt: skip


def corrected_row(draft: Draft, segments: Sequence[Segment], spans: Sequence[Sequence[int]] | None) -> Row:
    """The record of a corrected solution. ``spans``: what is trained of it; None: all."""
    wrong = list(draft.wrong.values())
    row: Row = {
        "id": f"{draft.row['id']}#{draft.variant}",
        "prompt": draft.row["prompt"],
        "completion": text_of(segments),
        "problem": draft.row["id"],
        "segments": to_record(segments),
        "n_errors": len(wrong),
        "fold": wrong[0].fold,
        "pass_at_k": {"k": wrong[0].rollouts, "n_ok": max(one.right for one in wrong)},
        "source": "s3c",
    }
    if spans is not None:
        row["spans"] = [list(span) for span in spans]
    return row


def spans_of(segments: Sequence[Segment], *, mask_wrong: bool) -> list[list[int]]:
    """What is trained of a completion: all but the wrong steps, or everything and its end."""
    return trained_spans(segments) if mask_wrong else [[0, len(text_of(segments)) + 1]]


def where(records: Sequence[Row]) -> list[dict[str, Any]]:
    """How often the first error stands at which step of how many, for a table. A whole attempt is wrong at
    the last index that its lines have.
    """
    counts: Counter[tuple[int, int]] = Counter()
    for record in records:
        if record["n_errors"]:
            lines = {one["step_idx"] for one in record["segments"]}
            wrong = sorted({one["step_idx"] for one in record["segments"] if one["type"] == "wrong"})
            first = wrong[-record["n_errors"]]
            counts[max(lines), first + 1] += 1
    return [
        {"steps": steps, "step": step, "solutions": number}
        for (steps, step), number in sorted(counts.items())
    ]
