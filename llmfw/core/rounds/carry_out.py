"""Rounds of a sampler: ask for records, train on them, evaluate; each round resumable, every generated token
counted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llmfw.core.data.spread import spread
from llmfw.core.determinism import seed_all
from llmfw.core.errors import DataError, PluginError
from llmfw.core.failpoints import failpoint
from llmfw.core.guard import place_of_function
from llmfw.core.records import RolloutSampler, Round, Row
from llmfw.core.rounds.ledger import BudgetSpent, Ledger, place_of
from llmfw.core.say import say
from llmfw.core.tracking.files import write_json

ROUND = "round.json"
"""The file in which a round's folder remembers what the sampler gave."""
_BASE, _LAST = "base", "last"


@dataclass(frozen=True, kw_only=True)
class RoundState:
    """A round as its folder remembers it: what the sampler gave, and whether it was trained to the end."""

    index: int
    folder: Path
    records: Sequence[Row]
    start: str
    keep_as: str | None
    done: bool
    epochs: float | None = None
    notes: dict[str, float] = field(default_factory=dict)
    """Numbers about the records: the sampler's own, then the core's (``spread``)."""
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def final(self) -> Path:
        """Weights after the round."""
        return self.folder / "final"


def run_rounds(
    sampler: RolloutSampler,
    folder: Path,
    *,
    seed: int,
    rows: Sequence[Row],
    services: Callable[..., Any],
    policy: Callable[[Path | None], Any],
    train: Callable[[RoundState, Path | None], None],
    keep: Callable[[str, Path], None],
    ledger: Ledger,
) -> list[RoundState]:
    """Rounds until the sampler ends them, or the ledger's budget is spent.

    A round whose records are on disk isn't sampled again, one that was trained to the end isn't trained
    again, and of one whose sampling was cut what the ledger remembers isn't generated again. So a kill
    anywhere repeats nothing but the answers in flight (training resumes from its own checkpoints).

    Args:
        seed: of the run; each round's sampling has generators of its own, whatever came before it.
        rows: the data module's rows, the sampler's source.
        policy: weights folder (None: base) -> the policy to sample from.
        train: trains a round from the given weights (None: base) into ``state.final``; a round that it has
            trained to the end already is only told again (a kill may come before the round's own mark).
        keep: makes a round's result the auxiliary model of a name.

    Raises:
        BudgetSpent: before the first round had its records.
    """
    finished: list[RoundState] = []
    kept: dict[str, Path] = {}
    while True:
        index = len(finished)
        last = finished[-1].final if finished else None
        failpoint("loop.before_round")
        state = _remembered(folder, index)
        if state is None:
            source = policy(last)
            seed_all(seed, "round", index)
            try:
                with ledger.sampling(index):
                    given = sampler.next(index, rows, source, services, ledger)
            except BudgetSpent as error:
                if not finished:
                    raise
                say(f"note: {error.what}: {len(finished)} rounds were trained, the next one isn't")
                return finished
            if given is None:
                return finished
            state = _remember(folder, index, given, sampler, rows, {_BASE, _LAST, *kept})
        if not state.done:
            starts = {_BASE: None, _LAST: last, **kept}
            train(state, starts[state.start])
            failpoint("loop.before_done")
            write_json(state.folder / "done.json", {"final": state.final.name})
            state = replace(state, done=True)
        if state.keep_as:
            kept[state.keep_as] = state.final
            keep(state.keep_as, state.final)
        finished.append(state)
        failpoint("loop.after_round")


def _remember(
    folder: Path,
    index: int,
    given: Any,
    sampler: RolloutSampler,
    rows: Sequence[Row],
    starts: set[str],
) -> RoundState:
    """Write down what the sampler gave, and how it lies over the problems.

    Raises:
        PluginError: it is no round, begins with weights that nobody kept, is kept under a name that has a
            meaning, or holds what isn't json.
        DataError: it has no records.
    """
    wrong = None
    if not isinstance(given, Round):
        wrong, mend = f"returned {type(given).__name__}", "return a llmfw.Round or None"
    elif given.start not in starts:
        wrong = f"starts round {index} from {given.start!r}, which no earlier round has kept"
        mend = f"use one of {', '.join(sorted(starts))}"
    elif given.keep_as in (_BASE, _LAST):
        wrong = f"keeps round {index} as {given.keep_as!r}, which as a start means other weights"
        mend = "give keep_as another name"
    else:
        wrong, mend = _unwritable(given), "give texts, finite numbers, true, false, null, lists and objects"
    if wrong:
        file, line = place_of_function(sampler.next)
        raise PluginError(
            "PLUGIN-RECORD", f"sampler {sampler.name!r} {wrong}", mend=mend, file=file, line=line
        )
    if not given.records:
        raise DataError(
            "ROUND-EMPTY",
            f"round {index} of sampler {sampler.name!r} has no records: there's nothing to train on",
            mend="give it easier problems, more samples or a better start",
        )
    place = place_of(folder, index)
    place.mkdir(parents=True, exist_ok=True)
    numbers, tables = spread(rows, given.records)
    write_json(
        place / ROUND,
        {
            "start": given.start,
            "keep_as": given.keep_as,
            "epochs": given.epochs,
            "notes": {**given.notes, **numbers},
            "tables": {**{name: list(table) for name, table in given.tables.items()}, **tables},
            "records": list(given.records),
        },
    )
    found = _remembered(folder, index)
    assert found is not None
    return found


def _unwritable(given: Round) -> str | None:
    """What of a round isn't json, if anything."""
    parts: list[tuple[str, Any]]
    parts = [(f"record {record.get('id', place)!r}", record) for place, record in enumerate(given.records)]
    parts += [
        ("notes", dict(given.notes)),
        *((f"table {name!r}", list(t)) for name, t in given.tables.items()),
    ]
    for name, part in parts:
        try:
            json.dumps(part, allow_nan=name == "notes")  # a mean of nothing is no number, and may be told
        except (TypeError, ValueError, RecursionError) as error:
            return f"gave {name} that can't be kept as json ({error})"
    return None


def _remembered(folder: Path, index: int) -> RoundState | None:
    place = place_of(folder, index)
    file = place / ROUND
    if not file.exists():
        return None
    told = json.loads(file.read_text(encoding="utf-8"))
    return RoundState(
        index=index,
        folder=place,
        records=told["records"],
        start=told["start"],
        keep_as=told["keep_as"],
        epochs=told.get("epochs"),
        notes=told["notes"],
        tables=told.get("tables", {}),
        done=(place / "done.json").exists(),
    )
