"""The frame of self-training: a round on the problems' own solutions, then rounds on the model's own right
answers. A method says how it collects attempts; everything else is here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmfw.core.data import PLACE, answer_of
from llmfw.core.data.spread import spread
from llmfw.core.errors import DataError, UsageError
from llmfw.core.generation.attempts import Attempt, Rollouts, distinct, trained_row
from llmfw.core.records import Round, Row
from llmfw.core.say import say

GOLD = "gold"
"""The name under which the round on the problems' own solutions is kept."""


@dataclass
class SelfTrainingConfig:
    """Settings that samplers of this family share."""

    rounds: int = field(default=3, metadata={"help": "rounds of sampling and training", "minimum": 1})
    samples: int = field(default=8, metadata={"help": "answers sampled per problem", "minimum": 1})
    temperature: float = field(default=0.7, metadata={"help": "of these samples", "minimum": 0.0})
    verifier: str = field(
        default="number",
        metadata={"help": "service that judges answers: number, math, string, option, program, ..."},
    )
    gold: bool = field(
        default=True, metadata={"help": "before them train a round on the problems' own solutions"}
    )
    gold_epochs: float | None = field(
        default=None, metadata={"help": "passes over the solutions in that round; null: trainer.epochs"}
    )
    start: str = field(
        default="base",
        metadata={
            "help": "weights from which each round trains; gold: those after the round on solutions",
            "choices": ("base", "last", "gold"),
        },
    )
    keep_gold: bool = field(
        default=False, metadata={"help": "train the problems' own solutions in the other rounds, too"}
    )
    unique: bool = field(
        default=False, metadata={"help": "keep equal answers to one problem once (white space apart)"}
    )
    problems: int = field(
        default=100, metadata={"help": "held-out problems that are measured; 0: none", "minimum": 0}
    )
    vote: int = field(
        default=0, metadata={"help": "samples per held-out problem, for pass@k and maj@k", "minimum": 0}
    )


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What a method brings of a round: attempts (right and wrong ones), numbers, tables.

    ``masked``: the given beginnings of answers aren't trained.
    """

    attempts: Sequence[Attempt]
    notes: Mapping[str, float] = field(default_factory=dict)
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    masked: bool = False
    rows: Sequence[Row] | None = None
    """Records that the method made itself; None: the right attempts are."""
    ends: str = ""
    """Why there's nothing left to learn: the rounds end here, and this is said."""


Collect = Callable[[Rollouts, Sequence[Row]], Collected]


def self_training(
    config: SelfTrainingConfig,
    run: Any,
    collect: Collect,
    *,
    logps: bool = False,
    name: str,
) -> Callable[..., Round | None]:
    """The ``next`` of a sampler: [the round on solutions], then ``config.rounds`` rounds of ``collect``.

    Called inside the hook, so that what can't be had is refused before anything is loaded.

    Args:
        collect: asks for attempts at the rows.
        logps: ask for the samples' log-probs.
        name: of the plugin, for messages.

    Raises:
        UsageError: ``start=gold`` without that round; a verifier that nobody offers.
    """
    if config.start == GOLD and not config.gold:
        raise UsageError(
            "START", "no round trains the problems' own solutions",
            mend=f"set {name}.gold=true, or another start", key=f"{name}.start",
        )  # fmt: skip
    run.expect_service("Verifier", config.verifier, key=f"{name}.verifier")
    if config.samples > 1 and config.temperature == 0:
        say(
            f"warning[SAME-SAMPLES] at {name}.temperature=0 the {config.samples} answers to a problem are "
            f"one and the same; {name}.samples=1 gives as much"
        )

    def next_round(index: int, rows: Sequence[Row], policy: Any, services: Any, ledger: Any) -> Round | None:
        _problems(rows, name)
        if config.gold and index == 0:
            given = gold_rows(rows)
            return Round(records=given, keep_as=GOLD, epochs=config.gold_epochs)
        if index >= config.rounds + config.gold:
            return None
        rollouts = Rollouts(
            policy=policy,
            ledger=ledger,
            verifier=services("Verifier", config.verifier),
            index=index,
            seed=run.seed,
            temperature=config.temperature,
            logps=logps,
        )
        collected = collect(rollouts, rows)
        if collected.ends:
            say(f"note: {collected.ends}: no more rounds")
            return None
        right = right_rows(collected, index, unique=config.unique)
        made = right if collected.rows is None else list(collected.rows)
        if not made:
            told_so = (
                f"round {index}: of {len(collected.attempts)} answers to {len(rows)} problems none can be "
                f"trained ({told(collected.attempts)})"
            )
            if not config.keep_gold:
                raise DataError(
                    "NOTHING-RIGHT",
                    told_so,
                    mend=f"give easier problems, more {name}.samples, a better model, or look whether "
                    f"{name}.verifier reads its answers",
                    key=f"{name}.samples",
                )
            say(f"warning[NOTHING-RIGHT] {told_so}; only the problems' own solutions are")
        if config.keep_gold:
            made += [{**row, "id": f"{row['id']}.{index}"} for row in _uncounted(gold_rows(rows))]
        notes = {**counts(collected.attempts), **collected.notes}
        if config.unique and collected.rows is None:
            sampled, _ = spread(rows, right_rows(collected, index))
            notes |= {f"before unique/{key}": value for key, value in sampled.items()}
        return Round(records=made, start=config.start, notes=notes, tables=collected.tables)

    return next_round


def gold_rows(rows: Sequence[Row]) -> list[Row]:
    """The problems' own solutions, as records."""
    return [
        {
            "id": f"{row['id']}.gold", "prompt": row["prompt"], "completion": answer_of(row),
            "problem": row["id"],
        }
        for row in rows
    ]  # fmt: skip


def _uncounted(rows: Sequence[Row]) -> list[Row]:
    """Rows as records that don't count as answers to their problems: coverage is that of what was sampled."""
    return [{key: value for key, value in row.items() if key != "problem"} for row in rows]


def right_rows(collected: Collected, index: int, *, unique: bool = False) -> list[Row]:
    """The right attempts as records, in their order."""
    right = [attempt for attempt in collected.attempts if attempt.right]
    kept = distinct(right) if unique else right
    return [trained_row(attempt, index, mask_prefix=collected.masked) for attempt in kept]


def counts(attempts: Sequence[Attempt]) -> dict[str, float]:
    """Shares of the attempts that are right, unfinished, without an answer, and that nobody could judge; and
    their mean length in tokens.
    """
    if not attempts:
        return {}
    total = len(attempts)
    status = Counter(attempt.verdict.status for attempt in attempts)
    return {
        "attempts": float(total),
        "right": sum(attempt.right for attempt in attempts) / total,
        "unfinished": sum(not attempt.finished for attempt in attempts) / total,
        "unparsed": status["unparsed"] / total,
        "unjudged": status["failed"] / total,
        "length": sum(attempt.completion.tokens for attempt in attempts) / total,
    }


def told(attempts: Sequence[Attempt]) -> str:
    """The same in words, for messages."""
    found = counts(attempts)
    names = ("right", "unfinished", "unparsed", "unjudged")
    return ", ".join(f"{found[name]:.0%} {name}" for name in names if name in found) or "none was sampled"


def _problems(rows: Sequence[Row], name: str) -> None:
    """Refuse rows that have no answer to compare with.

    Raises:
        DataError: NOT-PROBLEMS.
    """
    for row in rows:
        if "answer" not in row or "prompt" not in row:
            place = f"{row[PLACE]}: " if row.get(PLACE) else ""
            raise DataError(
                "NOT-PROBLEMS",
                f"{place}row {row.get('id')!r} is no problem: {name} compares sampled answers with the row's "
                "own",
                mend="give rows with prompt and answer: data=chain-arithmetic, champ-problems, "
                "reasoning-gym, or a file",
                key="data",
            )
