"""Runs trainings one after another in every process that a launcher started, and in one process alike.

    torchrun --nproc_per_node=2 -m tests.toys.strategies CASES.json

CASES.json holds a list of cases: name, settings, and where wanted plugins, resume ("must") and stop (the step
in whose middle the run breaks). Every rank writes NAME-RANK.json: the error's line and class, or its steps.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import llmfw
from llmfw.core import failpoints
from llmfw.core.say import process_rank
from llmfw.core.tracking import read_journal

ROWS = "".join(
    json.dumps({"id": f"r{i}", "prompt": f"say {i}", "completion": f"it is {i}"}) + "\n" for i in range(30)
)
PAIRS = "".join(
    json.dumps(
        {
            "id": f"p{i}",
            "prompt": f"say {i}",
            "chosen": f"it is {i}",
            "rejected": f"no, it is {i + 1}, I think",
        }
    )
    + "\n"
    for i in range(30)
)
QUIET = (
    "model=tiny-llama",
    "trainer.progress=false",
    "tracking.mlflow=false",
    "trainer.threads=1",
    "trainer.accelerator=cpu",
)
STEPS = 6


def case(name: str, *settings: str, plugins: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    """A case whose run lies in the folder of its name."""
    return {
        "name": name,
        "settings": [*QUIET, f"run.dir={name}", *settings],
        "plugins": list(plugins),
        **more,
    }


def run(one: dict[str, Any]) -> None:
    """Run one case here."""
    failpoints._reached.clear()
    os.environ.pop(failpoints.VARIABLE, None)
    if one.get("stop"):
        os.environ[failpoints.VARIABLE] = f"train.mid_accum:{one['stop']}:raise"
    found: dict[str, Any] = {"error": None}
    try:
        result = llmfw.fit(*one["settings"], plugins=one["plugins"], resume=one.get("resume", "never"))
        found["steps"] = result.steps
    except (llmfw.LlmfwError, failpoints.Failpoint) as error:
        found["error"] = [type(error).__name__, str(error)]
    os.environ.pop(failpoints.VARIABLE, None)
    Path(f"{one['name']}-{process_rank()}.json").write_text(json.dumps(found))


def series(folder: Path | str) -> dict[str, dict[int, float]]:
    """What a run logged: loss, gradient norm, held-out loss, by step."""
    view = read_journal(Path(folder) / "journal.jsonl")
    return {name: dict(view.series[name]) for name in ("loss", "grad_norm", "validation/loss")}


def difference(left: Path | str, right: Path | str) -> float:
    """Largest relative difference (absolute below 1) of two runs' series, which have the same steps, and the
    same samples in every step.
    """
    a, b = series(left), series(right)
    assert {name: sorted(values) for name, values in a.items()} == {n: sorted(v) for n, v in b.items()}
    assert len(a["loss"]) == STEPS and a["validation/loss"]
    seen = [
        [e.fields["sample_ids"] for e in read_journal(Path(f) / "journal.jsonl").of("consumed")]
        for f in (left, right)
    ]
    assert [sorted(ids) for ids in seen[0]] == [sorted(ids) for ids in seen[1]]
    return max(
        abs(a[name][step] - b[name][step]) / max(1.0, abs(a[name][step])) for name in a for step in a[name]
    )


if __name__ == "__main__":
    for each in json.loads(Path(sys.argv[1]).read_text()):
        run(each)
