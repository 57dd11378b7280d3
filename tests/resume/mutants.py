"""The mutation control: which ingredient of exact resume, left out, is noticed by which schedule of kills.

    python -m tests.resume.mutants --write     # into tests/resume/outcomes.json

Each schedule runs with each ingredient switched off in both runs, the untouched one too. An ingredient that
no schedule misses wouldn't be needed; a schedule that misses nothing proves nothing.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.resume.outcomes import OUT, write
from tests.resume.trials import COMMON, LORA, Kills, Warm, compared, run, write_data
from tests.resume.warm import MUTANTS

SCHEDULES: dict[str, Kills] = {
    "after step 5": [5],
    "after step 4, then after one more": [4, 1],
    "inside the second checkpoint": ["ckpt.mid_write:2:kill"],
    "at the first batch after a resume": [4, "train.first_batch_after_resume:1:kill"],
}


def bites(warm: Warm, mutant: str, kills: Kills, folder: Path) -> list[str]:
    """What differs between the untouched run and the killed one."""
    files = write_data(folder / "data")
    args = [f"data={files['answers']}", *LORA, *COMMON, "trainer.accumulate=3"]
    whole = run(warm, folder / "whole", args, [], mutant=mutant).folder
    killed = run(warm, folder / "killed", args, kills, mutant=mutant).folder
    return [one.what for one in compared(whole, killed) if not one.equal]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help=f"write the outcome into {OUT.name}")
    asked = parser.parse_args(argv)
    warm, rows = Warm(), list[dict[str, Any]]()
    try:
        for mutant in ("", *MUTANTS):
            for name, kills in SCHEDULES.items():
                folder = Path(tempfile.mkdtemp(prefix="llmfw-mutants-"))
                found = bites(warm, mutant, kills, folder)
                shutil.rmtree(folder)
                rows.append({"left out": mutant, "schedule": name, "different": found})
                print(f"{mutant or 'nothing left out'}; {name}: {', '.join(found) or 'equal'}", flush=True)
    finally:
        warm.close()
    if asked.write:
        write("mutants", rows)
    noticed = {row["left out"] for row in rows if row["different"]}
    return 0 if noticed == set(MUTANTS) else 1


if __name__ == "__main__":
    raise SystemExit(main())
