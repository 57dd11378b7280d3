"""What a killed run and an untouched one must have in common, read from their folders."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from llmfw.core.checkpoint import checkpoints, verify
from llmfw.core.checkpoint.io import STATE
from llmfw.core.proof.apart import Apart, apart
from llmfw.core.rounds import ROUND
from llmfw.core.tracking import read_journal
from llmfw.core.tracking.reader import UNREPEATABLE, JournalView

TOLERANCE = 1e-2
"""Largest relative difference of a value in class B: sums in another order, carried through the steps."""
_TIMES = ("train_seconds",)
_COUNTERS = ("loops", "pytorch-lightning_version", "hparams_name", "hyper_parameters")
"""Lightning's own: our loader and schedule go by the step alone."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was compared. ``bits`` counts differing ones where it was tensors."""

    what: str
    equal: bool
    said: str
    held: bool
    """Whether it is as the run's class promises."""
    bits: int = 0


def compare(whole: Path, killed: Path, grade: str) -> list[Finding]:
    """Compare two finished runs (and each of their rounds) as far as class ``grade`` promises anything."""
    found: list[Finding] = []
    mine, theirs = _parts(whole), _parts(killed)
    for name in sorted({*mine, *theirs}):
        if name in mine and name in theirs:
            found += _compared(whole / name, killed / name, grade, "" if name == "." else f"{name}: ")
        else:
            found.append(Finding(what=name, equal=False, held=False, said="only one of the runs has it"))
    return found


def _parts(run: Path) -> list[str]:
    """The run itself and its rounds, as far as they trained: their places below the run's folder."""
    folders = [run, *(run / "rounds").glob("*")]
    return [str(one.relative_to(run)) for one in folders if (one / "final").is_dir()]


def _compared(whole: Path, killed: Path, grade: str, prefix: str) -> Iterator[Finding]:
    one, other = (read_journal(folder / "journal.jsonl") for folder in (whole, killed))
    if (whole / ROUND).exists():
        yield _records(f"{prefix}records", whole / ROUND, killed / ROUND, grade)
    yield _tensors(f"{prefix}weights", apart(whole / "final", killed / "final"), grade)
    newest, also = (checkpoints(folder / "checkpoints")[0][0] for folder in (whole, killed))
    for folder in (newest, also):
        verify(folder)
    yield _tensors(f"{prefix}optimizer and last checkpoint", apart(newest, also), grade)
    yield _states(f"{prefix}states (generators, callbacks, position)", newest, also, grade)
    yield _series(f"{prefix}metric series", one, other, grade)
    yield _samples(f"{prefix}samples of each step", one, other, grade)


def _records(what: str, one: Path, other: Path, grade: str) -> Finding:
    mine, theirs = (json.loads(file.read_text(encoding="utf-8"))["records"] for file in (one, other))
    odd = sum(a != b for a, b in zip_longest(mine, theirs))
    return Finding(
        what=what, equal=not odd, held=not odd or grade != "A", said=f"{len(mine)} records, {odd} differ"
    )


def _tensors(what: str, found: Apart, grade: str) -> Finding:
    said = f"{found.tensors} tensors, {found.elements:,} values, {found.bits} bits differ"
    if not found.equal:
        said += f" (first: {found.first}; largest difference {found.largest:.1e} of the largest value)"
    held = found.equal if grade == "A" else grade == "C" or found.within(TOLERANCE)
    return Finding(what=what, equal=found.equal, held=held, said=said, bits=found.bits)


def _states(what: str, one: Path, other: Path, grade: str) -> Finding:
    mine, theirs = (
        _state(json.loads((folder / STATE).read_text(encoding="utf-8"))) for folder in (one, other)
    )
    odd = next(_differences(mine, theirs), "")
    said = f"first difference: {odd}" if odd else f"equal, {len(mine)} parts"
    return Finding(what=what, equal=not odd, held=not odd or grade != "A", said=said)


def _state(raw: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in raw.items() if key not in _COUNTERS}
    kept["llmfw"] = {key: value for key, value in raw.get("llmfw", {}).items() if key not in _TIMES}
    return kept


def _differences(one: Any, other: Any, place: str = "") -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys((*one, *other)):
            yield from _differences(one.get(key), other.get(key), f"{place}.{key}".lstrip("."))
    elif one != other:
        yield f"{place} is {str(one)[:60]} and {str(other)[:60]}"


def _series(what: str, one: JournalView, other: JournalView, grade: str) -> Finding:
    mine, theirs = _repeatable(one), _repeatable(other)
    values = sum(map(len, mine.values()))
    odd = sorted(mine.keys() ^ theirs.keys())
    steps = [name for name in mine if [s for s, _ in mine[name]] != [s for s, _ in theirs.get(name, [])]]
    if odd or steps:
        name = (odd or steps)[0]
        return Finding(
            what=what, equal=False, held=grade == "C", said=f"{name} hasn't the same steps in both"
        )
    pairs = [
        (name, step, a, b)
        for name, points in mine.items()
        for (step, a), (_, b) in zip(points, theirs[name], strict=True)
        if a.hex() != b.hex()
    ]
    said = f"{len(mine)} series, {values} values, {len(pairs)} differ"
    if pairs:
        name, step, a, b = pairs[0]
        said += f" (first: {name} at step {step}: {a!r} and {b!r})"
    near = all(math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE) for _, _, a, b in pairs)
    held = not pairs if grade == "A" else grade == "C" or near
    return Finding(what=what, equal=not pairs, held=held, said=said)


def _repeatable(view: JournalView) -> dict[str, list[tuple[int, float]]]:
    return {name: list(points) for name, points in view.series.items() if not name.startswith(UNREPEATABLE)}


def _samples(what: str, one: JournalView, other: JournalView, grade: str) -> Finding:
    mine, theirs = consumed(one), consumed(other)
    odd = [step for step in dict.fromkeys((*mine, *theirs)) if mine.get(step) != theirs.get(step)]
    count = sum(map(len, mine.values()))
    said = f"{len(mine)} steps, {count} samples, {len(odd)} steps differ" + (
        f" (first: {odd[0]})" if odd else ""
    )
    return Finding(what=what, equal=not odd, held=not odd or grade == "C", said=said)


def consumed(view: JournalView) -> Mapping[int, Sequence[str]]:
    """The samples of each optimizer step that counts."""
    return {int(one.fields["step"]): list(one.fields["sample_ids"]) for one in view.of("consumed")}


def lost_steps(view: JournalView) -> list[int]:
    """Of each time the run was taken up again: steps that were done and had to be done once more."""
    lost, done = [], 0
    for event in view.events:
        if event.kind == "consumed":
            done = int(event.fields["step"])
        elif event.kind == "rewind":
            lost.append(done - int(event.fields["step"]))
            done = int(event.fields["step"])
    return lost
