"""Our side: ``llmfw.fit`` with a run's settings, on the samples of a job. Its own process.

python -m benchmarks.sides.ours JOB.json
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.sides import clock

DISTRIBUTION = """\
[llmfw.plugins]
given = benchmarks.sides.given:Given

[lightning.pytorch.callbacks_factory]
given = benchmarks.sides.given:callbacks
"""


def install(site: Path) -> None:
    """Make the plugin ``given`` an installed one, for this process alone."""
    info = site / "given-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: given\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(DISTRIBUTION)
    sys.path.insert(0, str(site))


def settings(job: dict[str, Any], folder: Path) -> list[str]:
    """The run's settings, ``KEY=VALUE``: those that hold on every side, then the job's own."""
    return [
        f"model={job['model']}",
        f"given.file={job['batches']}",
        f"run.dir={folder / 'run'}",
        f"trainer.max_steps={job['warmup'] + job['steps'] + 1}",  # the last one isn't reached
        f"trainer.micro_batch={job['micro_batch']}",
        f"trainer.accumulate={job['accumulate']}",
        f"trainer.threads={job['threads']}",
        f"optimizer.lr={job['lr']}",
        "optimizer.schedule=constant",
        "optimizer.warmup=0",
        "optimizer.clip=1.0",
        "data.group_by_length=false",
        *job["settings"],
    ]


def main(job: dict[str, Any]) -> None:
    """Train as the job says; the process ends with the last step."""
    folder = Path(job["folder"])
    install(folder / "site")
    os.environ["LLMFW_CACHE"] = str(folder / "cache")

    import llmfw
    from benchmarks.sides import given

    given.CLOCK = clock.Clock(job, _leave)
    try:
        llmfw.fit(*settings(job, folder), plugins=[*job["plugins"], "given"])
    except llmfw.LlmfwError:
        if not Path(job["out"]).exists():
            raise
        add_filling(Path(job["out"]), folder / "run" / "journal.jsonl")
        os._exit(0)
    raise RuntimeError("the run ended before the job's last step")


def add_filling(out: Path, journal: Path) -> None:
    """Add what the run noted of its reference cache's filling, if it filled one."""
    from llmfw.core.tracking import read_journal
    from llmfw.core.training.references import EVENT

    told = json.loads(out.read_text())
    for event in read_journal(journal).of(EVENT):
        told["reference_seconds"] = event.fields["seconds"]
    out.write_text(json.dumps(told))


def _leave(code: int) -> None:
    """Stop the run: a plugin may not end the process, and an error of it ends the run."""
    raise RuntimeError("all steps were taken")


if __name__ == "__main__":
    main(clock.read_job(sys.argv))
