"""Guided self-improvement: problems that have too few right answers are asked again, with help."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from llmfw import Round, Row
from llmfw.core.data import answer_of
from llmfw.core.generation import Attempt, Collected, Rollouts, distinct, self_training, trained_row

from .asking import Groups, ask, helps, refuse_unsolved, shows_solutions
from .functional import lines, overlap

if TYPE_CHECKING:
    from .plugin import Gsi


def guided(config: Gsi.Config, run: Any) -> Callable[..., Round | None]:
    """The sampler's ``next``.

    Raises:
        UsageError: help by a teacher whom nobody provides.
        NoSolutionError: (when it's called) a problem has no solution, and the strategy shows it.
    """
    kept = config.gold and config.teacher == "gold"  # by the round on the solutions
    if helps(config) and config.strategy == "interactive" and not kept:
        run.expect_policy(config.teacher, setting="gsi.teacher")

    def collect(rollouts: Rollouts, rows: Sequence[Row]) -> Collected:
        groups: Groups = {
            str(row["id"]): attempts
            for row, attempts in zip(
                rows, rollouts.attempt(rows, purpose="sample", samples=config.samples), strict=True
            )
        }
        begun = sum(not _enough(groups[str(row["id"])], config.min_correct) for row in rows)
        unexplained = 0
        for attempt in range(1, config.max_resample + 1):
            hard = [row for row in rows if not _enough(groups[str(row["id"])], config.min_correct)]
            if not hard:
                break
            asked = ask(config, run, rollouts, hard, groups, attempt)
            unexplained += asked.unexplained
            again = rollouts.attempt(
                hard,
                purpose="resample" if config.strategy == "none" else "guided",
                first=config.samples + attempt - 1,
                prompts=asked.prompts,
                prefixes=asked.prefixes,
            )
            for row, made in zip(hard, again, strict=True):
                groups[str(row["id"])] += made
        every = [attempt for row in rows for attempt in groups[str(row["id"])]]
        notes = told(config, rows, groups, begun)
        if config.strategy == "interactive":
            notes["guided/unexplained"] = float(unexplained)
        found = Collected(attempts=every, notes=notes, masked=config.mask_prefix)
        return cut(config, rollouts, found) if config.keep_at_most else found

    rounds = self_training(config, run, collect, name="gsi")

    def next_round(index: int, rows: Sequence[Row], policy: Any, services: Any, ledger: Any) -> Round | None:
        if shows_solutions(config):
            refuse_unsolved(rows, config.strategy)
        return rounds(index, rows, policy, services, ledger)

    return next_round


def _enough(attempts: Sequence[Attempt], wanted: int) -> bool:
    return sum(attempt.right for attempt in attempts) >= wanted


def cut(config: Gsi.Config, rollouts: Rollouts, found: Collected) -> Collected:
    """The same with the records of ``config.keep_at_most`` right answers at most; note ``cut``: how many more
    there were.
    """
    right = [attempt for attempt in found.attempts if attempt.right]
    able = distinct(right) if config.unique else right
    kept = drawn(able, config.keep_at_most, f"{rollouts.seed}/{rollouts.index}")
    return Collected(
        attempts=found.attempts,
        notes={**found.notes, "cut": float(len(able) - len(kept))},
        rows=[trained_row(attempt, rollouts.index, mask_prefix=config.mask_prefix) for attempt in kept],
    )


def drawn(attempts: Sequence[Attempt], most: int, seed: str) -> list[Attempt]:
    """``most`` of the attempts by lot, in their order. An attempt's lot is a function of the seed, its
    problem and its number alone.
    """

    def lot(attempt: Attempt) -> bytes:
        return hashlib.sha256(f"{seed}/{attempt.row['id']}/{attempt.number}".encode()).digest()

    chosen = sorted(range(len(attempts)), key=lambda place: lot(attempts[place]))[:most]
    return [attempts[place] for place in sorted(chosen)]


def told(config: Gsi.Config, rows: Sequence[Row], groups: Groups, begun: int) -> dict[str, float]:
    """What guidance cost and brought: ``guided/share`` of the right answers, ``guided/rescued`` problems that
    came to enough right answers by it, of ``guided/needed``; ``guided/per_rescue`` generations, if there was
    any; ``per_kept`` generations per right answer, if there was one; how far right guided answers copy the
    gold solution, and how long they are to it.
    """
    every = [attempt for attempts in groups.values() for attempt in attempts]
    helped = [attempt for attempt in every if attempt.number >= config.samples]
    kept = [attempt for attempt in every if attempt.right]
    kept_helped = [attempt for attempt in helped if attempt.right]
    rescued = begun - sum(not _enough(groups[str(row["id"])], config.min_correct) for row in rows)
    found = {
        "guided/needed": float(begun),
        "guided/rescued": float(rescued),
        "guided/generations": float(len(helped)),
        "guided/share": len(kept_helped) / max(1, len(kept)),
    }
    if kept:
        found["per_kept"] = len(every) / len(kept)
    if rescued:
        found["guided/per_rescue"] = len(helped) / rescued
    if kept_helped:
        copied = [overlap(attempt.text, answer_of(attempt.row)) for attempt in kept_helped]
        found["guided/overlap"] = sum(copied) / len(copied)
        lengths = [lines(attempt.text) / lines(answer_of(attempt.row)) for attempt in kept_helped]
        found["guided/lines"] = sum(lengths) / len(lengths)
        given = [len(attempt.prefix) / max(1, len(attempt.text)) for attempt in kept_helped]
        found["guided/given"] = sum(given) / len(given)
    return found
