"""How well a critic finds the first wrong step of responses whose steps are judged already: chains with a
wrong step put in, or annotated responses of real models (data=champ-first-wrong).

A row carries such a response in ``meta.response``, and the characters of its first wrong step in
``meta.first_wrong``, [begin, end), or null: no mistake.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmfw import Estimate, LlmfwError, Row
from llmfw.callbacks.intervals import share_interval
from llmfw.core.data import answer_of

from .asking import fits, to_critic
from .critics import Critic, criticised, read
from .errors import CritiqueError
from .grammar import Critique, Form
from .steps import flawed_response, located, step_of_span

NAME = "critic"


@dataclass(frozen=True)
class Labelled:
    """A response and the index of its first wrong step, None: it has none."""

    row: Row
    response: str
    first_wrong: int | None


def labelled(rows: Sequence[Row], seed: int) -> list[Labelled]:
    """The annotated responses of rows that have one; of chains a flawed one and the true solution each. Other
    rows give none.

    Raises:
        CritiqueError: ANNOTATION: a span that touches no line of its response.
    """
    found: list[Labelled] = []
    for row in rows:
        meta = row.get("meta") or {}
        if "response" in meta:
            found.append(annotation_of(row))
            continue
        try:
            response, at = flawed_response(row, seed)
        except LlmfwError:  # no chain: nobody knows its steps
            continue
        found += [Labelled(row, response, at), Labelled(row, answer_of(row), None)]
    return found


def annotation_of(row: Row) -> Labelled:
    """The annotated response of a row.

    Raises:
        CritiqueError: ANNOTATION.
    """
    response, span = str(row["meta"]["response"]), row["meta"].get("first_wrong")
    if span is None:
        return Labelled(row, response, None)
    at = step_of_span(response, int(span[0]), int(span[1]))
    if at is None:
        raise CritiqueError(
            "ANNOTATION",
            f"row {row.get('id')!r}: characters {span[0]} to {span[1]} of its response hold no step",
            mend="give [begin, end) of the first wrong step, or null",
            key="meta.first_wrong",
        )
    return Labelled(row, response, at)


def measured(
    critic: Critic, cases: Sequence[Labelled], form: Form, most: int | None
) -> tuple[dict[str, float | Estimate], list[dict[str, Any]]]:
    """(numbers, a line a response): ``critic/verdict``, share of critiques that find an error where there is
    one and none where there's none; ``critic/first_error_hit``, share of the wrong responses whose first
    error is found; ``critic/false_alarm``, share of the right ones in which one is; ``critic/unparsed``;
    ``critic/too_long``, responses that the critic can't read. All but the last over the responses read.
    """
    prompts = [to_critic(case.row, case.response, form) for case in cases]
    short = [at for at, prompt in enumerate(prompts) if fits(critic.policy, prompt)]

    def generate(policy: Any, asked: Any, **sampling: Any) -> list[Any]:
        return list(policy.generate(asked, **sampling)) if asked else []

    said = criticised(critic, [prompts[at] for at in short], generate, most)
    read_ones = [(cases[at], read(critic, one.text, form)) for at, one in zip(short, said, strict=True)]
    lines = [
        {
            "id": case.row.get("id"), "first_wrong": case.first_wrong, "said": one.text,
            "found": None if critique is None else found_in(critique, case.response),
            "read": critique is not None,
        }
        for (case, critique), one in zip(read_ones, said, strict=True)
    ]  # fmt: skip
    return scores(read_ones) | {f"{NAME}/too_long": float(len(cases) - len(short))}, lines


def found_in(critique: Critique, response: str) -> int | None:
    """The step that a critique calls the first wrong one."""
    return located(critique, response)


def scores(cases: Sequence[tuple[Labelled, Critique | None]]) -> dict[str, float | Estimate]:
    """The numbers of ``measured`` from critiques that were read, None where one couldn't be."""
    wrong = [(case, said) for case, said in cases if case.first_wrong is not None]
    right = [(case, said) for case, said in cases if case.first_wrong is None]
    hits = [said is not None and found_in(said, case.response) == case.first_wrong for case, said in wrong]
    alarms = [said is not None and said.first_error is not None for _, said in right]
    verdicts = [
        said is not None
        and (said.first_error is not None or not said.correct) == (case.first_wrong is not None)
        for case, said in cases
    ]
    found: dict[str, float | Estimate] = {}
    for name, values in (("verdict", verdicts), ("first_error_hit", hits), ("false_alarm", alarms)):
        if values:
            found[f"{NAME}/{name}"] = share_interval(sum(values), len(values))
    if cases:
        found[f"{NAME}/unparsed"] = sum(said is None for _, said in cases) / len(cases)
    return found
