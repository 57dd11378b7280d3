"""How long one waits: for help, the list of plugins, a plan, the first optimizer step.

    python -m benchmarks.startup                          # results/startup.json
    python -m benchmarks.startup --repetitions 1 --out FOLDER --no-peers

Every command is a process of its own, timed from its start to its end. *Cold*: the files of its environment
were put out of the page cache before (``posix_fadvise``; a disk's own cache stays). *Warm*: directly after.
The first step is that of a small random model on texts of token ids, timed from the start of the process:
ours is ``llmfw.fit`` with its plan, journal and data report, TRL's is ``SFTTrainer.train()``, LitGPT's the
loop of its full fine-tuning.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import harness, record, tasks
from benchmarks.harness import Side, Task
from benchmarks.sft_step import QUIET

OURS = {
    "llmfw --help": ("--help",),
    "llmfw plugins": ("plugins", "list"),
    "llmfw plan": ("plan", "--plugin", "dpo", "model=smollm2-135m"),
}
THEIRS = {"trl --help": "trl", "litgpt --help": "litgpt"}
FIRST_STEPS = (
    Side(name="llmfw", program="ours", settings=QUIET),
    Side(name="trl", program="trl_step", environment="trl", settings={}),
    Side(name="litgpt", program="litgpt_step", environment="litgpt"),
)


def commands(peers: bool) -> dict[str, list[str]]:
    """Name -> the command's words."""
    own = Path(sys.executable).parent / "llmfw"
    found = {name: [str(own), *words] for name, words in OURS.items()}
    if peers:
        for name, environment in THEIRS.items():
            binary = record.peer_python(environment).parent / environment
            found[name] = [str(binary), *name.split()[1:]]
    return found


def put_out(folder: Path) -> int:
    """Put the files below a folder out of the page cache; gives how many there were."""
    count = 0
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            handle = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(handle)
            count += 1
    return count


def environment_of(command: Sequence[str]) -> Path:
    """The folder of the environment that a command's program lies in."""
    return Path(command[0]).parent.parent


def seconds(command: Sequence[str], threads: int) -> float:
    """From the process's start to its end.

    Raises:
        RuntimeError: the command failed; with what it printed.
    """
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=record.ROOT, env=harness.surroundings(threads), capture_output=True, text=True
    )
    taken = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"{Path(command[0]).name} failed:\n{done.stdout[-500:]}{done.stderr[-2000:]}")
    return taken


def waits(options: argparse.Namespace, found: Mapping[str, list[str]]) -> dict[str, dict[str, list[float]]]:
    """Seconds by command, cold and warm, repetition by repetition, the commands in turn."""
    told: dict[str, dict[str, list[float]]] = {name: {"cold": [], "warm": []} for name in found}
    for _ in range(options.repetitions):
        for name, command in found.items():
            put_out(environment_of(command))
            for state in ("cold", "warm"):
                told[name][state].append(seconds(command, options.threads))
            print(name, {state: round(values[-1], 2) for state, values in told[name].items()}, flush=True)
    return told


def first_steps(options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds to the end of the first step, by side, warm."""
    told: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        model = tasks.made(Path(folder) / "tiny", tasks.TINY)
        samples = tasks.made_texts([9, 14, 7, 20], tasks.TINY["vocab_size"])
        task = Task(
            name="first step", kind="sft", model=model, batches=tasks.in_steps(samples, 2), micro_batch=2,
            threads=options.threads,
        )  # fmt: skip
        sides = [side for side in FIRST_STEPS if side.environment is None or not options.no_peers]
        for number in range(options.repetitions):
            for side in sides:
                found = harness.run(side, task, Path(folder), number)
                told.setdefault(side.name, []).append(found["first_step_seconds"])
                print(f"first step, {side.name}: {told[side.name][-1]:.2f} s", flush=True)
    return told


def rows_of(
    told: Mapping[str, Mapping[str, list[float]]], steps: Mapping[str, list[float]]
) -> list[dict[str, Any]]:
    """A row for each wait of ours, against each peer's of its kind."""
    rows = []
    for state in ("cold", "warm"):
        for name in OURS:
            rows += _against(f"{name}, {state}", told[name][state], _help(told, name, state))
    return [*rows, *_against("first step, warm", steps["llmfw"], _others(steps))]


def _help(told: Mapping[str, Mapping[str, list[float]]], name: str, state: str) -> dict[str, list[float]]:
    """What peers take for the same: only their help is."""
    return {peer: told[peer][state] for peer in THEIRS if peer in told and name == "llmfw --help"}


def _others(steps: Mapping[str, list[float]]) -> dict[str, list[float]]:
    return {name: values for name, values in steps.items() if name != "llmfw"}


def _against(case: str, ours: Sequence[float], peers: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    alike: dict[str, Any] = {
        "ours": statistics.median(ours), "unit": "s", "repetitions": len(ours),
        "ours_spread": harness.spread(ours),
    }  # fmt: skip
    if not peers:
        return [record.row(case, **alike)]
    return [
        record.row(
            case, peer=statistics.median(values), peer_name=name, peer_spread=harness.spread(values), **alike
        )
        for name, values in peers.items()
    ]


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--no-peers", action="store_true", help="ours alone")
    parser.add_argument("--out", type=Path, default=record.RESULTS, help="folder of the result")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> Path:
    """Measure, write the result, print a line per row."""
    options = parse(words)
    tasks.smollm2()  # what a plan reads is fetched before the clock starts
    versions: dict[str, str] = {}
    if not options.no_peers:
        for name in ("trl", "litgpt"):
            versions |= record.peer_versions(name, name)
    rows = rows_of(waits(options, commands(not options.no_peers)), first_steps(options))
    settings = {
        "threads": options.threads,
        "cold": "the environment's files were put out of the page cache before",
        "warm": "directly after",
    }
    path = record.write("startup", rows, versions=versions, folder=options.out, settings=settings)
    record.tell(rows)
    print(f"wrote {path.name}")
    return path


if __name__ == "__main__":
    main()
