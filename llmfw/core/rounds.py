"""Rounds of a sampler: ask for records, train on them, evaluate; each round resumable, every generated token
counted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llmfw.core.determinism import seed_all
from llmfw.core.errors import DataError, PluginError
from llmfw.core.guard import place_of_function
from llmfw.core.records import RolloutSampler, Round, Row
from llmfw.core.tracking.files import write_json

ROUND = "round.json"
"""The file in which a round's folder remembers what the sampler gave."""
_COUNTED = ("prompts", "samples", "tokens", "seconds")


class Ledger:
    """What sampling cost, by purpose: prompts, samples, tokens, seconds. Written by rename after every
    change.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._counts: dict[str, dict[str, float]] = json.loads(file.read_text()) if file.exists() else {}

    def count(
        self, purpose: str, *, prompts: int = 0, samples: int = 0, tokens: int = 0, seconds: float = 0.0
    ) -> None:
        """Add to a purpose's counts."""
        row = self._counts.setdefault(purpose, dict.fromkeys(_COUNTED, 0))
        for name, amount in zip(_COUNTED, (prompts, samples, tokens, seconds), strict=True):
            row[name] += amount
        write_json(self._file, self._counts)

    def of(self, purpose: str) -> dict[str, float]:
        """The counts of one purpose."""
        return dict(self._counts.get(purpose, dict.fromkeys(_COUNTED, 0)))

    def total(self) -> dict[str, float]:
        """The counts over all purposes."""
        return {name: sum(row[name] for row in self._counts.values()) for name in _COUNTED}

    @contextmanager
    def timed(self, purpose: str) -> Iterator[None]:
        """Count the block's seconds."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.count(purpose, seconds=time.monotonic() - start)


@dataclass(frozen=True, kw_only=True)
class RoundState:
    """A round as its folder remembers it: what the sampler gave, and whether it was trained to the end."""

    index: int
    folder: Path
    records: Sequence[Row]
    start: str
    keep_as: str | None
    done: bool
    notes: dict[str, float] = field(default_factory=dict)

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
) -> list[RoundState]:
    """Rounds until the sampler ends them.

    A round whose records are on disk isn't sampled again, one that was trained to the end isn't trained
    again, so a kill anywhere costs at most the round's present phase (training resumes from its own
    checkpoints).

    Args:
        seed: of the run; each round's sampling has generators of its own, whatever came before it.
        rows: the data module's rows, the sampler's source.
        policy: weights folder (None: base) -> the policy to sample from.
        train: trains a round from the given weights (None: base) into ``state.final``.
        keep: makes a round's result the auxiliary model of a name.
    """
    ledger = Ledger(folder / "ledger.json")
    finished: list[RoundState] = []
    while True:
        index = len(finished)
        last = finished[-1].final if finished else None
        state = _remembered(folder, index)
        if state is None:
            source = policy(last)
            seed_all(seed, "round", index)
            given = sampler.next(index, rows, source, services, ledger)
            if given is None:
                return finished
            state = _remember(folder, index, given, sampler)
        if not state.done:
            train(state, last if state.start == "last" else None)
            write_json(state.folder / "done.json", {"final": state.final.name})
            state = replace(state, done=True)
        if state.keep_as:
            keep(state.keep_as, state.final)
        finished.append(state)


def _remember(folder: Path, index: int, given: Any, sampler: RolloutSampler) -> RoundState:
    if not isinstance(given, Round):
        file, line = place_of_function(sampler.next)
        raise PluginError(
            "PLUGIN-RECORD",
            f"sampler {sampler.name!r} returned {type(given).__name__}",
            mend="return a llmfw.Round or None",
            file=file,
            line=line,
        )
    if not given.records:
        raise DataError(
            "ROUND-EMPTY",
            f"round {index} of sampler {sampler.name!r} has no records: there's nothing to train on",
            mend="give it easier problems, more samples or a better start",
        )
    place = folder / "rounds" / f"{index:03d}"
    place.mkdir(parents=True, exist_ok=True)
    write_json(
        place / ROUND,
        {
            "start": given.start,
            "keep_as": given.keep_as,
            "notes": dict(given.notes),
            "records": list(given.records),
        },
    )
    found = _remembered(folder, index)
    assert found is not None
    return found


def _remembered(folder: Path, index: int) -> RoundState | None:
    place = folder / "rounds" / f"{index:03d}"
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
        notes=told["notes"],
        done=(place / "done.json").exists(),
    )
