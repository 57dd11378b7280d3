"""One round: sample, verify, keep the best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llmfw import Completion, Round, Row
from llmfw.core.data import answer_of

from .functional import best, chosen, score


def given(row: Row) -> str:
    """The row's own answer."""
    return str(row["completion"]) if "completion" in row else answer_of(row)


def best_of(
    rows: Sequence[Row],
    sample: Callable[[list[Row]], Sequence[Sequence[Completion]]],
    *,
    share: float,
) -> Round:
    """The round's records: of the chosen rows with the best sampled answer, of the others as they are.

    ``sample``: rows -> the sampled answers of each.
    """
    asked = [row for row in rows if chosen(str(row["prompt"]), share)]
    answers = dict(zip([row["id"] for row in asked], sample(asked), strict=True))
    records: list[Row] = []
    scores: list[float] = []
    for row in rows:
        texts = [answer.text for answer in answers.get(row["id"], ())]
        index = best(texts, given(row))
        if index is not None:
            scores.append(score(texts[index], given(row)))
            row = {"id": row["id"], "prompt": row["prompt"], "completion": texts[index]}
        records.append(row)
    notes = {"sampled": len(scores) / len(rows), "score": sum(scores) / max(1, len(scores))}
    return Round(records=records, notes=notes)


def sample_with(policy: Any, ledger: Any, seed: int, samples: int) -> Callable[[list[Row]], Any]:
    """The ``sample`` of ``best_of``: the policy's answers, counted in the ledger."""

    def sample(rows: list[Row]) -> list[list[Completion]]:
        answers = ledger.generate(
            policy, [row["prompt"] for row in rows],
            purpose="best_of", samples=samples, temperature=1.0, seed=seed,
        )  # fmt: skip
        return [answers[start : start + samples] for start in range(0, len(answers), samples)]

    return sample
