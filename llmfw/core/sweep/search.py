"""What a sweep tries, and by what its runs are judged; checked before any of them begins."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from llmfw.core.assemble import Settled, settle
from llmfw.core.errors import UsageError
from llmfw.core.series import REFERENCE, reference_words
from llmfw.core.settings.swept import Swept, combinations
from llmfw.core.tracking.comparison import direction

Sampler = Literal["grid", "random", "tpe"]
Mode = Literal["min", "max"]
_OURS = ("run.dir", "run.name", "plugins", "tracking.")
"""Keys that can't be swept: they name runs, decide which keys there are, or say where numbers go."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is tried and by what it is judged."""

    layers: Mapping[str, Any]
    fixed: Sequence[str]
    swept: Sequence[Swept]
    sampler: Sampler
    trials: int
    metric: str
    mode: Mode
    seed: int = 0

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what decides the trials, except the settings under them."""
        told = [
            [vars(one) for one in self.swept], self.sampler, self.trials, self.metric, self.mode, self.seed,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def make_search(
    fixed: Sequence[str],
    swept: Sequence[Swept],
    sampler: Sampler,
    trials: int | None,
    metric: str,
    mode: Mode | None,
    layers: Mapping[str, Any],
) -> Search:
    """What is to be tried.

    Raises:
        UsageError: nothing is swept, a key that can't be, or a count of runs or a direction that nobody said.
    """
    if not swept:
        raise UsageError(
            "SWEEP", "nothing is swept", mend="write KEY=A,B,C, or KEY=LOW..HIGH with --sampler random"
        )
    for one in swept:
        if one.key.startswith(_OURS):
            raise UsageError("SWEEP", "this key can't be swept", mend="set it to one value", key=one.key)
    better = mode or direction(metric)
    if better is None:
        raise UsageError(
            "SWEEP", f"the name {metric!r} doesn't tell which direction is better",
            mend="add --mode min or --mode max", key="--metric",
        )  # fmt: skip
    if sampler == "grid":
        count = len(combinations(swept))
        if trials is not None and trials < count:
            raise UsageError(
                "SWEEP", f"the grid has {count} combinations, more than {trials}",
                mend="use --sampler random, or leave --trials out", key="--trials",
            )  # fmt: skip
        trials = count
    elif trials is None:
        raise UsageError(
            "SWEEP", f"nothing says how many runs to draw ({sampler})", mend="add --trials N", key="--trials"
        )
    return Search(
        layers=layers, fixed=fixed, swept=swept, sampler=sampler, trials=trials, metric=metric, mode=better
    )  # fmt: skip


def check(search: Search) -> Settled:
    """The configuration of the first combination. Of a grid every combination is settled before any runs,
    else each value beside the first of the others.
    """
    tried = combinations(search.swept) if search.sampler == "grid" else _corners(search.swept)
    settled = [settle_trial(search, settings) for settings in tried]
    return settled[0]


def _corners(swept: Sequence[Swept]) -> list[dict[str, str]]:
    """Each value once, beside the first of the others; of ranges the two ends."""
    values = {one.key: one.corners for one in swept}
    first = {key: found[0] for key, found in values.items()}
    return [{**first, key: value} for key, found in values.items() for value in found]


def settle_trial(search: Search, settings: Mapping[str, str], *more: str) -> Settled:
    """The configuration of one combination."""
    words = [*search.fixed, *(f"{key}={value}" for key, value in settings.items()), *more]
    return settle(overrides=words, **search.layers)


def share_reference(search: Search, base: Settled) -> tuple[Search, list[str]]:
    """The search with the reference's log-probs cached, where a loss wants a reference and nobody chose."""
    if any(one.key == REFERENCE for one in search.swept):
        return search, []
    words, notes = reference_words(base)
    return replace(search, fixed=[*search.fixed, *words]), notes


def fingerprint_of(search: Search, base: Settled) -> str:
    """SHA-256 of the search and of every setting that stays the same in it."""
    swept = {one.key for one in search.swept}
    flat = {
        key: value
        for key, value in base.resolved.flat().items()
        if key not in swept and not key.startswith(("run.", "tracking."))
    }
    told = json.dumps([search.fingerprint, flat], sort_keys=True, default=str)
    return hashlib.sha256(told.encode()).hexdigest()
