"""Mixed jobs for an hour: growth of memory, descriptors, processes and files, and verdicts that changed.

    python -m benchmarks.sandbox_soak                    # results/sandbox_soak.json, an hour
    python -m benchmarks.sandbox_soak --seconds 5 --out FOLDER

Temporary files go into a folder of their own, so that those of other programs don't count.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks import record
from benchmarks.sandbox import MIXED, versions
from llmfw.plugins.mplsandbox.executor import Sandbox


def soak(seconds: float) -> list[dict[str, Any]]:
    """Mixed jobs for so long: what has grown."""
    sandbox = Sandbox(jobs=len(os.sched_getaffinity(0)))
    me = psutil.Process()

    def state() -> dict[str, float]:
        sandbox.close()  # what stands ready for a next job is no growth
        return {
            "MiB": me.memory_info().rss / 2**20,
            "descriptors": me.num_fds(),
            "processes": len(me.children(recursive=True)),
            "files": len(os.listdir(tempfile.gettempdir())),
        }

    requests, wanted = zip(*MIXED, strict=True)
    list(sandbox.run_many(requests * 4))
    before, wrong, count = state(), Counter[str](), 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for result, verdict in zip(sandbox.run_many(requests * 4), wanted * 4, strict=True):
            count += 1
            wrong[f"{verdict} became {result.verdict}"] += result.verdict != verdict
    after = state()
    limits = {"MiB": 8.0, "descriptors": 0.0, "processes": 0.0, "files": 0.0}
    rows = [
        record.row(
            f"growth over {seconds:.0f} s of mixed jobs: {what}", ours=after[what], unit=what, repetitions=1,
            peer=before[what] or None, peer_name="before", judged=after[what] - before[what],
            goal=("at most", limit), jobs=count,
        )
        for what, limit in limits.items()
    ]  # fmt: skip
    other = sum(wrong.values())
    rows.append(
        record.row(
            f"other verdicts over {seconds:.0f} s", ours=other, unit=f"of {count}", repetitions=1,
            judged=other, goal=("at most", 0), kinds={key: value for key, value in wrong.items() if value},
        )
    )  # fmt: skip
    return rows


def main(words: Sequence[str] | None = None) -> Path:
    """Measure, write the result, print a line per row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=3600.0, help="how long")
    parser.add_argument("--out", type=Path, default=record.RESULTS, help="folder of the result")
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="soak-") as place:
        Path(place).chmod(0o755)
        tempfile.tempdir = place
        rows = soak(options.seconds)
        tempfile.tempdir = None
    settings = {"level": "strict", "seconds": options.seconds}
    path = record.write("sandbox_soak", rows, versions=versions(), folder=options.out, settings=settings)
    record.tell(rows)
    print(f"wrote {path.name}")
    return path


if __name__ == "__main__":
    main()
