"""The kill matrix: every combination of what resuming could trip over, each with kills of its own.

    python -m tests.resume.matrix --write     # into tests/resume/outcomes.json
    python -m tests.resume.matrix --cells 4   # the first four

A cell's kills are drawn by its name, so they are the same each time: three, at failpoints and after random
numbers of steps. One at a failpoint that lies behind where a launch goes on doesn't come. CI runs two cells a
commit (``test_matrix.py``), drawn by the commit's hash.
"""

from __future__ import annotations

import argparse
import itertools
import random
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from tests.resume.outcomes import OUT, write
from tests.resume.trials import COMMON, FULL, LORA, Warm, compared, run, write_data

EVERYWHERE = (
    "ckpt.before_write",
    "ckpt.mid_write",
    "ckpt.before_fsync",
    "ckpt.before_rename",
    "ckpt.after_rename",
    "ckpt.before_prune",
    "train.first_batch_after_resume",
    "train.last_batch_of_epoch",
    "log.before_flush",
)
"""Failpoints that every run of ours reaches."""


@dataclass(frozen=True)
class Cell:
    """One combination."""

    accumulate: int
    ragged: bool
    """Whether the last batch of an epoch is smaller than the others."""
    train: str
    """full (with dropout in attention), or lora (with its dropout)."""
    workers: int
    validate: bool
    plugin: str
    """"" for none."""

    @property
    def name(self) -> str:
        return (
            f"{self.plugin or 'none'}-{self.train}-acc{self.accumulate}-{'ragged' if self.ragged else 'even'}"
            f"-workers{self.workers}-{'validated' if self.validate else 'unvalidated'}"
        )

    def args(self, folder: Path) -> list[str]:
        """Words of ``llmfw fit``; data are written into ``folder``."""
        # 12 samples are 6 steps of 2, and 24 are 4 of 6: ten steps end an epoch in each case
        files = write_data(folder, (24 if self.accumulate == 3 else 12) - self.ragged)
        held = write_data(folder / "held", 4, first=100)
        plugin = ["--plugin", self.plugin, f"{self.plugin}.answers=0"] if self.plugin else []
        kind = "pairs" if self.plugin else "answers"
        return [
            *plugin,
            f"data={files[kind]}",
            *(LORA if self.train == "lora" else FULL),
            *COMMON,
            f"data.validation={held[kind]}",
            f"trainer.accumulate={self.accumulate}",
            f"data.workers={self.workers}",
            f"trainer.validate_every={2 if self.validate else 0}",
        ]

    def kills(self) -> list[str | int]:
        """Three of them, drawn by the cell's name."""
        chance = random.Random(self.name)
        points = [*EVERYWHERE, *(["train.mid_accum"] * (self.accumulate > 1)), *(["val.mid"] * self.validate)]
        return [
            chance.randint(1, 4),
            f"{chance.choice(points)}:1:kill",
            chance.choice([chance.randint(1, 4), f"{chance.choice(points)}:1:kill"]),
        ]


CELLS = [
    Cell(*values)
    for values in itertools.product(
        (1, 3), (False, True), ("full", "lora"), (0, 2), (False, True), ("", "ld_dpo")
    )
]


def trial(warm: Warm, cell: Cell, folder: Path) -> dict[str, Any]:
    """Run a cell untouched and killed, and tell what differs."""
    began = time.monotonic()
    args = cell.args(folder / "data")
    whole = run(warm, folder / "whole", args, [])
    killed = run(warm, folder / "killed", args, cell.kills(), all_come=False)
    found = compared(whole.folder, killed.folder)
    return {
        **asdict(cell),
        "name": cell.name,
        "schedule": cell.kills(),
        "kills": killed.kills,
        "bits": sum(one.bits for one in found),
        "different": [f"{one.what}: {one.said}" for one in found if not one.equal],
        "seconds": round(time.monotonic() - began, 1),
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", type=int, help="run this many only")
    parser.add_argument("--workers", type=int, default=1, help="cells at a time")
    parser.add_argument("--write", action="store_true", help=f"write the outcome into {OUT.name}")
    asked = parser.parse_args(argv)
    todo, rows, lock = list(CELLS[: asked.cells]), list[dict[str, Any]](), Lock()

    def work() -> None:
        warm = Warm()
        while todo:
            with lock:
                cell = todo.pop(0) if todo else None
            if cell is not None:
                with tempfile.TemporaryDirectory(prefix="llmfw-matrix-") as folder:
                    rows.append(trial(warm, cell, Path(folder)))
                print(
                    f"{len(rows):3} of {len(CELLS)}  {cell.name}: {rows[-1]['different'] or 'equal'}",
                    flush=True,
                )
        warm.close()

    with ThreadPoolExecutor(asked.workers) as pool:
        for done in [pool.submit(work) for _ in range(asked.workers)]:
            done.result()
    rows.sort(key=lambda row: [cell.name for cell in CELLS].index(row["name"]))
    odd = [row for row in rows if row["different"]]
    print(f"{len(rows)} trials, {sum(row['kills'] for row in rows)} kills, {len(odd)} that differ")
    if asked.write:
        write("matrix", rows)
    return 1 if odd else 0


if __name__ == "__main__":
    raise SystemExit(main())
