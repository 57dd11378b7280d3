"""One round: conversations, from the data or written by a model, with the labels of an arm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from llmfw import Round, Row

from .dialogue import kinds_of, masked
from .environments import rehearse
from .records import TrajectoryError

if TYPE_CHECKING:
    from .plugin import AgentRefine


def refinement(config: AgentRefine.Config, run: Any) -> Callable[..., Round | None]:
    """The sampler's ``next``: a single round."""

    def next_round(index: int, rows: Sequence[Row], policy: Any, services: Any, ledger: Any) -> Round | None:
        if index:
            return None
        rehearse(config.environments)
        if config.generator:
            from .generator import written

            given, notes, tables = written(config, run, rows, ledger)
        else:
            given, notes, tables = list(rows), {}, {}
        records = labelled(given, config.arm)
        return Round(records=records, notes={**told(given, records), **notes}, tables=tables)

    return next_round


def labelled(rows: Sequence[Row], arm: str) -> list[Row]:
    """The rows as the arm trains them, without those of which nothing would be trained.

    Raises:
        TrajectoryError: a row's messages don't say what kind of turn they are; nothing is left.
    """
    found = [row for row in (masked(one, arm) for one in rows) if row is not None]
    if not found:
        raise TrajectoryError(
            "NOTHING-TRAINED",
            f"of {len(rows)} dialogues none has a turn that arm {arm} trains",
            mend="give trajectories with turns that aren't errors, or choose another arm",
            key="agentrefine.arm",
        )
    # the script is long, and nobody reads it again
    return [
        {"problem": str(row["id"]), **{key: value for key, value in row.items() if key != "script"}}
        for row in found
    ]


def told(rows: Sequence[Row], records: Sequence[Row]) -> dict[str, float]:
    """Numbers of the round: ``turns`` per dialogue, the shares of them that are ``turns/error`` and
    ``turns/refine`` in the data, ``turns/trained`` of the turns in the records, ``skipped`` dialogues.
    """
    before = Counter(kind for row in rows for kind in kinds_of(row))
    after = [message for row in records for message in row["messages"] if message["role"] == "assistant"]
    total = sum(before.values())
    return {
        "turns": total / len(rows),
        "turns/error": before["error"] / total,
        "turns/refine": before["refine"] / total,
        "turns/trained": sum(message["loss"] for message in after) / len(after),
        "skipped": float(len(rows) - len(records)),
    }
