"""A run that is killed, any number of times, ends as the run that wasn't: weights, optimizer, numbers,
samples.

Each launch is the real command line over a real (tiny) model, forked from a process that has imported
everything.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmfw.core.checkpoint import checkpoints, verify
from llmfw.core.tracking import read_journal
from llmfw.core.tracking.reader import UNREPEATABLE
from tests.resume.warm import MUTANTS

pytestmark = pytest.mark.kill
ROOT = Path(__file__).resolve().parents[2]


class Warm:
    """The server of ``warm.py``."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "LLMFW_FAILPOINT": ""}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.resume.warm"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._answer() == {"ready": True}

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def launch(
        self, args: list[str], log: Path, *, env: dict[str, str], mutant: str, kill_after: int | None
    ) -> int:
        """Run one command line; ``kill_after``: SIGKILL to its process group after so many steps."""
        assert self.process.stdin is not None
        self.process.stdin.write(
            json.dumps({"args": args, "env": env, "mutant": mutant, "log": str(log)}) + "\n"
        )
        self.process.stdin.flush()
        pid = self._answer()["pid"]
        if kill_after is not None:
            _kill_after(pid, log.with_name("consumed.jsonl"), kill_after)
        return int(self._answer()["code"])

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


def _kill_after(pid: int, file: Path, steps: int) -> None:
    def count() -> int:
        return len(file.read_text().splitlines()) if file.exists() else 0

    wanted, give_up = count() + steps, time.monotonic() + 120
    while count() < wanted and time.monotonic() < give_up:
        time.sleep(0.002)
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
    os.killpg(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    server = Warm()
    yield server
    server.close()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, r = tmp_path_factory.mktemp("data"), random.Random(0)
    rows = {
        "pairs": [
            {"prompt": f"Say {i}", "chosen": "yes " * r.randint(1, 6), "rejected": "no " * r.randint(1, 6)}
            for i in range(23)
        ],
        "answers": [
            {"prompt": f"Count to {i}", "completion": " ".join(map(str, range(i % 9 + 1)))} for i in range(23)
        ],
    }
    for name, items in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return {name: folder / f"{name}.jsonl" for name in rows}


COMMON = [
    "model=tiny-llama",
    "trainer.micro_batch=2",
    "trainer.max_steps=10",
    "checkpoint.every=3",
    "optimizer.lr=1e-3",
    "tracking.mlflow=false",
    "trainer.progress=false",
    "generation.max_new_tokens=4",
    "data.validation=0.15",
]
LORA = ["adapter.kind=lora", "adapter.r=4", "adapter.dropout=0.3"]
FULL = ["model.config.attention_dropout=0.2"]


def run(warm: Warm, folder: Path, args: list[str], kills: list[str | int], *, mutant: str = "") -> Path:
    """Launch the same command until it ends well, with one kill a launch as scheduled; gives the run's
    folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = ["fit", *args, f"run.dir={folder / 'run'}", "--resume"]
    todo = list(kills)
    while True:
        kill = todo.pop(0) if todo else None
        env = {"LLMFW_FAILPOINT": kill if isinstance(kill, str) else ""}
        after = kill if isinstance(kill, int) else None
        code = warm.launch(command, folder / "log.txt", env=env, mutant=mutant, kill_after=after)
        said = (folder / "log.txt").read_text()[-2000:]
        if kill is None:
            assert code == 0, said
            return folder / "run"
        assert code == -signal.SIGKILL, f"{kill} didn't kill ({code}): {said}"


def facts(folder: Path) -> dict[str, Any]:
    """What must be equal: weights and optimizer (hashes of their files), the numbers, the samples of each
    step.
    """
    (newest, manifest), *_ = checkpoints(folder / "checkpoints")
    verify(newest)
    files = {name: digest for name, (digest, _) in manifest.files.items() if name.endswith(".safetensors")}
    assert any("optimizer" in name for name in files) and len(files) > 1
    consumed = [json.loads(line) for line in (folder.parent / "consumed.jsonl").read_text().splitlines()]
    journal = read_journal(folder / "journal.jsonl")
    repeatable = {
        name: [(step, value.hex()) for step, value in points]
        for name, points in journal.series.items()
        if not name.startswith(UNREPEATABLE)
    }
    return {
        "step": manifest.step,
        "files": files,
        "series": repeatable,
        "samples": dict(consumed),
        "final": _final(folder),
    }


def _final(folder: Path) -> dict[str, str]:
    return {
        name: digest for name, (digest, _) in verify(folder / "final").files.items() if "safetensors" in name
    }


_whole: dict[tuple[str, ...], dict[str, Any]] = {}


def check(warm: Warm, tmp_path: Path, args: list[str], kills: list[str | int]) -> None:
    key = tuple(args)
    if key not in _whole:
        _whole[key] = facts(run(warm, tmp_path / "whole", args, []))
    killed = facts(run(warm, tmp_path / "killed", args, kills))
    for what, value in _whole[key].items():
        assert killed[what] == value, what
    assert len(killed["series"]["loss"]) == 10 and len(killed["samples"]) == 10
    steps = len((tmp_path / "killed" / "consumed.jsonl").read_text().splitlines())
    assert steps <= 10 + 3 * len(kills), "each kill costs at most the steps between two checkpoints"


def test_preference_pairs_under_lora_with_accumulation_survive_two_kills_before_a_checkpoint_and_one_in_it(
    warm: Warm, tmp_path: Path, data: dict[str, Path]
) -> None:
    """mid_accum comes twice a step: the 3rd is in step 2, before any checkpoint; then after a random number
    of steps.
    """
    args = [
        "--plugin",
        "dpo",
        "dpo.answers=0",
        f"data={data['pairs']}",
        *LORA,
        *COMMON,
        "trainer.accumulate=3",
        "trainer.validate_every=2",
    ]
    at_random = random.Random(os.urandom(8)).randint(1, 8)
    print(f"random kill after {at_random} steps")
    check(warm, tmp_path, args, ["train.mid_accum:3:kill", at_random, "ckpt.mid_write:1:kill"])


def test_full_training_with_loader_processes_survives_a_kill_in_a_checkpoint_and_one_at_its_resume(
    warm: Warm, tmp_path: Path, data: dict[str, Path]
) -> None:
    args = [f"data={data['answers']}", *FULL, *COMMON, "data.workers=2", "trainer.validate_every=2"]
    check(warm, tmp_path, args, ["ckpt.before_prune:2:kill", "train.first_batch_after_resume:1:kill"])


SCHEDULES: dict[str, list[str | int]] = {
    "two kills before the next checkpoint": [4, 1],
    "inside the first and the second checkpoint": ["ckpt.mid_write:1:kill", "ckpt.before_rename:2:kill"],
    "between rename and prune, twice": ["ckpt.after_rename:2:kill", "ckpt.after_rename:1:kill"],
    "during the resume, twice": [
        4,
        "train.first_batch_after_resume:1:kill",
        "train.first_batch_after_resume:1:kill",
    ],
    "inside a validation": ["val.mid:2:kill", "val.mid:1:kill"],
    "at an epoch's last step": [9],
    "once in every launch": [1, 4, 4, 4, 1],
}


@pytest.mark.slow
@pytest.mark.parametrize("kills", SCHEDULES.values(), ids=SCHEDULES.keys())
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_every_schedule_of_kills_ends_as_the_run_that_was_not_killed(
    warm: Warm, tmp_path: Path, data: dict[str, Path], kills: list[str | int], accumulate: int, kind: str
) -> None:
    adapter = LORA if kind == "lora" else FULL
    args = [
        f"data={data['answers']}",
        *adapter,
        *COMMON,
        f"trainer.accumulate={accumulate}",
        "trainer.validate_every=2",
    ]
    check(warm, tmp_path, args, kills)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS)
def test_without_any_one_ingredient_a_killed_run_ends_otherwise(
    warm: Warm, tmp_path: Path, data: dict[str, Path], mutant: str
) -> None:
    """A kill test that can't fail is worth nothing."""
    args = [f"data={data['answers']}", *LORA, *COMMON, "trainer.accumulate=3"]
    whole = facts(run(warm, tmp_path / "whole", args, [], mutant=mutant))
    killed = facts(run(warm, tmp_path / "killed", args, [5], mutant=mutant))
    assert killed["files"] != whole["files"]
