"""What plugins cost that are installed and switched off: a step's time beside that where none is installed.

    python -m benchmarks.idle_plugins    # writes results/idle_plugins.json

Two copies of llmfw, one without any plugin, train the same tiny model on the same rows, each run a process of
its own, in pairs whose order changes. The model is so small that a step is Python's work above all: what is
added there would be seen. Of each pair the difference of the median steps is taken; the row gives their mean
in percent of a step with its 95% interval (Student's t over pairs). The goal: the interval holds 0, or its
upper end is at most 1%. tests/invariant counts the calls, which is exact.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import mean, median
from typing import Any

from benchmarks import record
from llmfw.callbacks.intervals import mean_interval

PAIRS, STEPS, SKIPPED = 12, 120, 20
GOAL = 1.0
"""Percent of a step."""
WORDS = (
    "fit", "model=tiny-llama", "data=rows.jsonl", "adapter.kind=none", "trainer.micro_batch=2",
    "trainer.accumulate=1", "trainer.progress=false", "trainer.threads=1", "trainer.log_every=2",
    "checkpoint.every=0", "generation.max_new_tokens=4", "tracking.mlflow=false",
)  # fmt: skip


def install(folder: Path, *, plugins: bool) -> Path:
    """A copy of llmfw in ``folder``, with its built-in plugins or without any; put first on PYTHONPATH, it
    stands for the llmfw that is installed.
    """
    left_out = shutil.ignore_patterns("__pycache__", *([] if plugins else _names()))
    shutil.copytree(record.ROOT / "llmfw", folder / "llmfw", ignore=left_out)
    info = folder / f"llmfw-{version('llmfw')}.dist-info"  # importlib.metadata takes the first of a name
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: llmfw\nVersion: {version('llmfw')}\n")
    found = "".join(f"{name} = {value}\n" for name, value in _entries().items()) if plugins else ""
    (info / "entry_points.txt").write_text(f"[llmfw.plugins]\n{found}")
    return folder


def probe(mode: str, places: Sequence[Path], folder: Path, *words: str) -> dict[str, Any]:
    """What ``idle_probe`` tells of a run in ``folder`` with these places first on the path."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"id": f"r{i}", "prompt": f"{i} + 1?", "completion": f"{i + 1}, I think"} for i in range(12)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "idle_probe.py"), mode, *WORDS, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places)), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(pairs: int = PAIRS) -> None:
    """Measure, print, write."""
    with tempfile.TemporaryDirectory() as place:
        here = Path(place)
        homes = {name: install(here / name, plugins=name == "installed") for name in ("installed", "none")}
        taken: dict[str, list[float]] = {name: [] for name in homes}
        for index in range(pairs + 1):
            for name in sorted(homes, reverse=bool(index % 2)):
                folder = here / f"{name}-{index}"
                told = probe("time", [homes[name]], folder, f"trainer.max_steps={STEPS}")
                if index:  # the first pair fills the disk's and the interpreter's caches
                    taken[name].append(median(told["seconds"][SKIPPED:]) * 1e3)
                shutil.rmtree(folder)
    differences = [(a - b) / b * 100 for a, b in zip(taken["installed"], taken["none"], strict=True)]
    told = mean_interval(pairs, sum(differences), sum(value**2 for value in differences))
    row = {
        "case": "a step with every built-in plugin installed and off",
        "ours": mean(taken["installed"]),
        "peer": mean(taken["none"]),
        "peer_name": "no plugin installed",
        "unit": "ms a step",
        "ratio": mean(taken["installed"]) / mean(taken["none"]),
        "repetitions": pairs,
        "difference": told.value,
        "interval": [told.low, told.high],
        "difference_unit": "percent of a step, mean of paired differences with its 95% interval",
        "pairs": differences,
        "goal": GOAL,
        "goal_is": "at most",
        "met": told.low <= 0 <= told.high or told.high <= GOAL,
    }
    path = record.write("idle_plugins", [row], versions={"llmfw": version("llmfw")})
    print(
        f"{row['case']}: {row['ours']:.3f} ms, without {row['peer']:.3f} ms; "
        f"difference {told.value:+.2f}% ({told.low:+.2f} to {told.high:+.2f})"
    )
    print(path.relative_to(record.ROOT))


def _entries() -> dict[str, str]:
    """Name -> entry point of the built-in plugins."""
    import tomllib

    project = tomllib.loads((record.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: dict[str, str] = project["entry-points"]["llmfw.plugins"]
    return found


def _names() -> list[str]:
    """The built-in plugins' folders."""
    folders = (record.ROOT / "llmfw" / "plugins").iterdir()
    return [path.name for path in folders if path.is_dir()]


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS)
