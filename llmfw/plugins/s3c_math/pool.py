"""The pool of wrong steps: cross-fitted sampling, roll-outs that judge, and how often they err.

A candidate is a next step that a model wrote behind a gold beginning. It's called wrong where none of K
continuations from it comes to the answer. A right step from which a continuation succeeds with chance r is
so called wrong with chance (1 - r)^K.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmfw import Row
from llmfw.core.data import stable_hash
from llmfw.core.generation import Attempt, Rollouts, prompt_of

from .annotate import is_chain, truly_wrong
from .errors import SettingsError
from .perturb import carried_on, perturbed
from .segments import normal
from .solution import DELIMITER, beginning, behind, lines_of, steps_of


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """A wrong step. ``right`` of ``rollouts`` continuations came to the answer (0 of 0: it was made so);
    ``fold`` is that of its problem and of the model that never saw it (None: no model wrote it); ``rest`` is
    how an attempt goes on that doesn't notice it.
    """

    text: str
    right: int = 0
    rollouts: int = 0
    fold: int | None = None
    rest: tuple[str, ...] = ()


Place = tuple[str, int]
"""A problem's id and the index of one of its steps."""
Pool = dict[Place, list[Wrong]]


@dataclass
class Found:
    """A pool and what was counted on the way to it."""

    pool: Pool = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)


def dealt(rows: Sequence[Row], folds: int, seed: int) -> dict[str, int]:
    """Each problem's fold, 0 to ``folds`` - 1: by the order of their hashes in turn, so that sizes differ by
    one at most.

    Raises:
        SettingsError: FOLDS: fewer problems than folds.
    """
    if len(rows) < folds:
        raise SettingsError(
            "FOLDS",
            f"{len(rows)} problems can't be dealt to {folds} folds",
            mend="give more problems or fewer folds",
            key="s3c_math.folds",
        )
    ids = sorted((str(row["id"]) for row in rows), key=lambda one: (stable_hash("fold", seed, one), one))
    return {one: number % folds for number, one in enumerate(ids)}


def called_wrong(attempts: Sequence[Attempt]) -> bool:
    """The rule of the pool: no continuation is right."""
    return not any(attempt.right for attempt in attempts)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A step that is judged by roll-outs; ``number`` tells those of one place apart."""

    row: Row
    at: int
    text: str
    number: int

    @property
    def begun(self) -> str:
        """What the roll-outs begin with."""
        return beginning(self.row, self.at) + self.text + behind(lines_of(self.row)[self.at])


def sampled(
    rollouts: Rollouts,
    rows: Sequence[Row],
    fold: int,
    *,
    candidates: int,
    temperature: float,
    count: int,
    audit: int,
) -> Found:
    """The wrong steps of one fold's problems, written and judged by the model of the other folds.

    Args:
        rollouts: that model, the verifier, the temperature of the continuations.
        candidates: next steps sampled at each place, at ``temperature``.
        count: K, continuations of each candidate.
        audit: right steps that are judged as well, to see how often they are called wrong.
    """
    found = Found()
    cases = _candidates(rollouts, rows, candidates, temperature, found.counts)
    for case, attempts in zip(cases, judged(rollouts, cases, count, "rollout"), strict=True):
        wrong = called_wrong(attempts)
        found.counts["judged"] += 1
        found.counts["wrong"] += wrong
        if is_chain(case.row):
            true = truly_wrong(case.row, steps_of(case.row)[: case.at], case.text)
            found.counts["known"] += 1
            found.counts["wrong, truly right"] += wrong and not true
            found.counts["right, truly wrong"] += true and not wrong
        if wrong:
            found.pool.setdefault((str(case.row["id"]), case.at), []).append(
                Wrong(text=case.text, rollouts=count, fold=fold, rest=_rest(attempts))
            )
    places = [(row, at) for row in rows for at in range(len(steps_of(row)))]
    places.sort(key=lambda one: (stable_hash("audit", rollouts.seed, one[0]["id"], one[1]), one[0]["id"]))
    right = [Case(row=row, at=at, text=steps_of(row)[at], number=0) for row, at in places[:audit]]
    for attempts in judged(rollouts, right, count, "audit"):
        found.counts["audited"] += 1
        found.counts["audited, called wrong"] += called_wrong(attempts)
        found.counts["audited, right roll-outs"] += sum(attempt.right for attempt in attempts)
        found.counts["audited, roll-outs"] += len(attempts)
    return found


def _candidates(
    rollouts: Rollouts, rows: Sequence[Row], samples: int, temperature: float, counts: Counter[str]
) -> list[Case]:
    """Different next steps that aren't the gold one; empty ones and those without an end are dropped."""
    places = [(row, at) for row in rows for at in range(len(steps_of(row)))]
    answers = rollouts.ledger.generate(
        rollouts.policy,
        [prompt_of(row) for row, _ in places],
        purpose="step",
        samples=samples,
        temperature=temperature,
        seed=rollouts.seed,
        ids=[f"step/{rollouts.index}/{row['id']}/{at}" for row, at in places],
        prefix=[beginning(row, at) for row, at in places],
        stop=(DELIMITER,),
    )
    found: list[Case] = []
    for number, (row, at) in enumerate(places):
        seen = {normal(steps_of(row)[at])}
        for answer in answers[number * samples : (number + 1) * samples]:
            counts["sampled"] += 1
            text = answer.text.split(DELIMITER)[0].strip()
            if answer.finish != "stop" or not text:
                counts["unfinished"] += 1
            elif normal(text) == normal(steps_of(row)[at]):
                counts["gold"] += 1
            elif normal(text) not in seen:
                seen.add(normal(text))
                found.append(Case(row=row, at=at, text=text, number=len(seen)))
    return found


def judged(rollouts: Rollouts, cases: Sequence[Case], count: int, purpose: str) -> list[list[Attempt]]:
    """For each case its ``count`` continuations, judged; the answer is the last one that they state."""
    rows = [{**case.row, "id": f"{case.row['id']}/{case.at}/{case.number}"} for case in cases]
    if not cases:
        return []
    return rollouts.attempt(rows, purpose=purpose, samples=count, prefixes=[case.begun for case in cases])


def _rest(attempts: Sequence[Attempt]) -> tuple[str, ...]:
    whole = [one.completion.text for one in attempts if one.finished and one.completion.text.strip()]
    return tuple(line for line in whole[0].split(DELIMITER) if line.strip()) if whole else ()


def made(
    rows: Sequence[Row], seed: object, count: int, *, beside: Mapping[Place, Any] | None = None
) -> Found:
    """Steps that are wrong on purpose, up to ``count`` a place; not where ``beside`` has some already."""
    found = Found()
    for row in rows:
        steps = steps_of(row)
        for at in range(len(steps)):
            place = (str(row["id"]), at)
            if beside is not None and place in beside:
                continue
            texts = perturbed(row, steps, at, seed, count)
            found.counts["perturbed"] += len(texts)
            if texts:
                found.pool[place] = [
                    Wrong(text=text, rest=tuple(carried_on(row, at, text))) for text in texts
                ]
    return found


def told(counts: Mapping[str, int], rollouts: int) -> dict[str, float]:
    """The counts as notes: ``steps/...`` what was sampled, ``label/...`` how often the roll-outs' verdict
    isn't the truth (chains alone), ``audit/...`` what they say of right steps: ``called_wrong``, the share;
    ``success``, of their continuations; ``expected``, (1 - success)^K.
    """
    notes = {"steps/perturbed": float(counts["perturbed"])} if counts.get("perturbed") else {}
    if counts.get("sampled"):
        total = counts["sampled"]
        notes |= {"steps/sampled": float(total), "steps/wrong": float(counts.get("wrong", 0))}
        notes |= {f"steps/{name}": counts.get(name, 0) / total for name in ("gold", "unfinished")}
    if counts.get("known"):
        wrong, known = counts.get("wrong", 0), counts["known"]
        notes["label/wrong_truly_right"] = counts.get("wrong, truly right", 0) / max(1, wrong)
        notes["label/right_truly_wrong"] = counts.get("right, truly wrong", 0) / max(1, known - wrong)
    if counts.get("audited"):
        success = counts.get("audited, right roll-outs", 0) / counts["audited, roll-outs"]
        notes["audit/called_wrong"] = counts.get("audited, called wrong", 0) / counts["audited"]
        notes["audit/success"] = success
        notes["audit/expected"] = (1 - success) ** rollouts
    return notes
