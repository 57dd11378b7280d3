"""The tables of docs/reliability.md, from what the commands of tests/resume wrote."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

_DIMENSIONS = (
    "accumulation 1 and 3, full and ragged last batches, full training and LoRA with dropout, 0 and 2 loader "
    "workers, with and without validation, no plugin and `ld_dpo`"
)
OUTCOMES = Path(__file__).parents[2] / "tests" / "resume" / "outcomes.json"


def resume_tables() -> str:
    """One paragraph or table for each command that has been run."""
    told = json.loads(OUTCOMES.read_text(encoding="utf-8")) if OUTCOMES.exists() else {}
    parts = ["\n".join(lines(told[name]["found"])) for name, lines in _PARTS.items() if name in told]
    names = ("torch", "lightning", "Python")
    versions = {
        ", ".join(f"{name} {one['versions'][name.lower()]}" for name in names) for one in told.values()
    }
    return "\n\n".join([*parts, f"Measured with {'; '.join(sorted(versions))}."]) + "\n"


def _verified(name: str) -> Callable[[Mapping[str, Any]], Iterator[str]]:
    def lines(found: Mapping[str, Any]) -> Iterator[str]:
        kills = ", ".join(map(str, found["kills"]))
        yield (
            f"**{name}**: `llmfw verify resume {' '.join(found['words'])}`, class {found['grade']}, "
            f"{found['steps']} steps, {len(found['kills'])} kills (after steps {kills}), "
            f"{found['seconds']:.0f} s."
        )
        yield ""
        yield "| compared | equal | |\n|---|---|---|"
        for one in found["findings"]:
            yield f"| {one['what']} | {'yes' if one['equal'] else 'no'} | {one['said']} |"

    return lines


def _matrix(found: list[Mapping[str, Any]]) -> Iterator[str]:
    odd = [row for row in found if row["different"]]
    kills, bits = sum(row["kills"] for row in found), sum(row["bits"] for row in found)
    yield (
        f"**Kill matrix** (`python -m tests.resume.matrix`): {_DIMENSIONS}: {len(found)} trials, "
        f"{kills} kills, {bits} differing bits, {len(odd)} trials that differ in anything."
    )
    for row in odd:
        yield f"- {row['name']}: {'; '.join(row['different'])}"


def _torn(found: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"**Kills inside the writing of a checkpoint** (`python -m tests.resume.torn`): {found['kills']}; "
        f"{len(found['torn'])} torn, {len(found['lost'])} that were durable and are gone; {found['swept']} "
        "half-written ones swept."
    )


def _mutants(found: list[Mapping[str, Any]]) -> Iterator[str]:
    schedules = list(dict.fromkeys(row["schedule"] for row in found))
    yield "**Mutation control** (`python -m tests.resume.mutants`): what differs without an ingredient."
    yield ""
    yield f"| left out | {' | '.join(schedules)} |"
    yield f"|---|{'---|' * len(schedules)}"
    for name in dict.fromkeys(row["left out"] for row in found):
        cells = [
            ", ".join(row["different"]) or "equal"
            for schedule in schedules
            for row in found
            if row["left out"] == name and row["schedule"] == schedule
        ]
        yield f"| {name or 'nothing'} | {' | '.join(cells)} |"


def _outage(found: Mapping[str, Any]) -> Iterator[str]:
    yield "**A real MLflow server frozen, killed and started again** (`python -m tests.resume.outage`):"
    yield ""
    for name, value in found.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        yield f"- {name}: {'yes' if value is True else 'no' if value is False else shown}"


_PARTS: Mapping[str, Callable[[Any], Iterator[str]]] = {
    "verify tiny": _verified("Tiny model"),
    "verify real": _verified("Real model"),
    "matrix": _matrix,
    "torn": _torn,
    "mutants": _mutants,
    "outage": _outage,
}
