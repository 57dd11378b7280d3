"""``llmfw trajectories``: build some with the planner, check a file, turn it into rows to train on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from llmfw import Row

from .actions import faults
from .dialogue import instruction_for, to_chat
from .records import Script, TrajectoryError, Turn, script_json, script_of, turn_json
from .rows import Options, houses, played_in, trajectory_row
from .verify import LEAST_ERRORS, Verified, verify

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OUT = click.Path(dir_okay=False, path_type=Path)


@click.group(help="Build, check and convert trajectories.")
def group() -> None:
    """The verb."""


@group.command(help="Play houses of the scripted world with the planner that errs.")
@click.option("--out", type=_OUT, required=True, help="File of rows to train on (jsonl).")
@click.option("--count", type=click.IntRange(1), default=100, show_default=True, help="Trajectories.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Which houses.")
@click.option("--names", type=click.Choice(["fixed", "varied"]), default="varied", show_default=True,
              help="Words of the actions: the world's own, or drawn for each episode.")  # fmt: skip
@click.option("--error-rate", type=click.FloatRange(0, 1), default=0.3, show_default=True,
              help="Probability of a mistake before each step.")  # fmt: skip
@click.option("--turns", is_flag=True, help="Write scripts and turns, as `check` reads them.")
def build(out: Path, count: int, seed: int, names: str, error_rate: float, turns: bool) -> None:
    """``llmfw trajectories build``"""
    options = Options(train=count, seed=seed, names=names, error_rate=error_rate)
    rows: list[Row] = []
    for number, (house, draw) in zip(range(count), houses(options, "train")):
        if turns:
            played = played_in(options, house, draw)
            rows.append(
                {
                    "id": f"train-{number}",
                    "script": script_json(played.script),
                    "instruction": played.instruction,
                    "turns": [turn_json(turn) for turn in played.turns],
                }
            )
        else:
            rows.append(trajectory_row(options, "train", number, house, draw))
    _write(out, rows)
    click.echo(f"{count} trajectories in {out}")


@group.command(help="Check trajectories (a script and turns a line): which hold, and what is wrong.")
@click.argument("file", type=_FILE)
@click.option("--least-errors", type=click.IntRange(0), default=LEAST_ERRORS, show_default=True,
              help="Repaired errors that a trajectory needs.")  # fmt: skip
def check(file: Path, least_errors: int) -> None:
    """``llmfw trajectories check``; exit code 3 where one doesn't hold."""
    counts: Counter[str] = Counter()
    for line in _lines(file, least_errors):
        counts[line.fault or "accepted"] += 1
        for about in line.wrong:
            click.echo(f"{file}:{line.number}: {line.name}: {line.fault}: {about}")
    click.echo(", ".join(f"{fault} {count}" for fault, count in counts.most_common()))
    if set(counts) != {"accepted"}:
        raise click.exceptions.Exit(TrajectoryError.exit_code)


@group.command(help="Turn trajectories that hold into rows to train on; of the others it says how many.")
@click.argument("file", type=_FILE)
@click.option("--out", type=_OUT, required=True, help="File of rows (jsonl).")
@click.option("--least-errors", type=click.IntRange(0), default=LEAST_ERRORS, show_default=True,
              help="Repaired errors that a trajectory needs.")  # fmt: skip
@click.option("--source", default="model", show_default=True, help="Who gave the flags: rules or model.")
def convert(file: Path, out: Path, least_errors: int, source: str) -> None:
    """``llmfw trajectories convert``"""
    rows: list[Row] = []
    left = 0
    for line in _lines(file, least_errors):
        if line.fault:
            left += 1
            continue
        instruction = str(line.told.get("instruction") or instruction_for(line.script))
        row = to_chat(line.name, instruction, line.turns, source=source)
        rows.append({**row, "script": line.told["script"]})
    if not rows:
        raise TrajectoryError(
            "NOTHING-ACCEPTED", f"none of {left} trajectories holds",
            mend="see what is wrong with `llmfw trajectories check`", file=file,
        )  # fmt: skip
    _write(out, rows)
    click.echo(f"{len(rows)} rows in {out}; {left} trajectories left out")


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a file of trajectories, and what is wrong with it."""

    number: int
    name: str
    told: Mapping[str, Any]
    script: Script
    turns: tuple[Turn, ...]
    """Those that hold."""
    fault: str
    """``script``, or one of ``verify.FAULTS``; empty: it holds."""
    wrong: tuple[str, ...]


def _lines(file: Path, least: int) -> Iterator[Line]:
    """The trajectories of a file, a line each.

    Raises:
        TrajectoryError: a line that is no object with script and turns, or no line at all.
    """
    empty = True
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                empty = False
                yield _line(file, number, line, least)
    if empty:
        raise TrajectoryError(
            "TRAJECTORY", "the file holds no trajectory", mend="build some with `llmfw trajectories build`",
            file=file,
        )  # fmt: skip


def _line(file: Path, number: int, line: bytes, least: int) -> Line:
    try:
        told = json.loads(line)
        script, turns = script_of(told["script"]), told["turns"]
        if not isinstance(turns, list):
            raise TypeError("turns is no list")
    except TrajectoryError as error:
        raise TrajectoryError(error.code, error.what, mend=error.mend, file=file, line=number) from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise TrajectoryError(
            "TRAJECTORY", f"the line is no object with script and turns ({error})",
            mend='write {"id": ..., "script": {...}, "turns": [...]} a line', file=file, line=number,
        ) from None  # fmt: skip
    fault, wrong, found = "script", faults(script), Verified(turns=())
    if not wrong:
        found = verify(script, turns, least=least)
        fault = found.fault or ""
        wrong = [f"{found.about} ({len(found.turns)} turns hold)"] if fault else []
    return Line(
        number=number, name=str(told.get("id", f"line-{number}")), told=told, script=script,
        turns=found.turns, fault=fault, wrong=tuple(wrong),
    )  # fmt: skip


def _write(out: Path, rows: list[Row]) -> None:
    out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
