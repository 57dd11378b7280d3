"""A run that is killed, any number of times, ends as the run that wasn't: weights, optimizer, numbers,
samples.

Each launch is the real command line over a real (tiny) model, forked from a process that has imported
everything.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.resume.mutants import bites
from tests.resume.trials import COMMON, FULL, LORA, ROOT, Kills, Warm, compared, run, write_data
from tests.resume.warm import MUTANTS

pytestmark = pytest.mark.kill


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    server = Warm()
    yield server
    server.close()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_data(tmp_path_factory.mktemp("data"))


_whole: dict[tuple[str, ...], Path] = {}


def check(warm: Warm, tmp_path: Path, args: Sequence[str], kills: Kills) -> None:
    key = tuple(args)
    if key not in _whole:
        _whole[key] = run(warm, tmp_path / "whole", args, []).folder
    killed = run(warm, tmp_path / "killed", args, kills).folder
    for finding in compared(_whole[key], killed):
        assert finding.equal, f"{finding.what}: {finding.said}"


def test_preference_pairs_under_lora_with_accumulation_survive_two_kills_before_a_checkpoint_and_one_in_it(
    warm: Warm, tmp_path: Path, data: dict[str, Path]
) -> None:
    """mid_accum comes twice a step: the 3rd is in step 2, before any checkpoint; then after a random number
    of steps.
    """
    args = [
        *("--plugin", "dpo", "dpo.answers=0", f"data={data['pairs']}"),
        *(*LORA, *COMMON, "trainer.accumulate=3", "trainer.validate_every=2"),
    ]
    at_random = random.Random(os.urandom(8)).randint(1, 8)
    print(f"random kill after {at_random} steps")
    check(warm, tmp_path, args, ["train.mid_accum:3:kill", at_random, "ckpt.mid_write:1:kill"])


def test_full_training_with_loader_processes_survives_a_kill_in_a_checkpoint_and_one_at_its_resume(
    warm: Warm, tmp_path: Path, data: dict[str, Path]
) -> None:
    args = [f"data={data['answers']}", *FULL, *COMMON, "data.workers=2", "trainer.validate_every=2"]
    check(warm, tmp_path, args, ["ckpt.before_prune:2:kill", "train.first_batch_after_resume:1:kill"])


SCHEDULES: dict[str, Kills] = {
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
    warm: Warm, tmp_path: Path, data: dict[str, Path], kills: Kills, accumulate: int, kind: str
) -> None:
    adapter = LORA if kind == "lora" else FULL
    args = [
        *(f"data={data['answers']}", *adapter, *COMMON),
        *(f"trainer.accumulate={accumulate}", "trainer.validate_every=2"),
    ]
    check(warm, tmp_path, args, kills)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS)
def test_without_any_one_ingredient_a_killed_run_ends_otherwise(
    warm: Warm, tmp_path: Path, mutant: str
) -> None:
    """A kill test that can't fail is worth nothing; ``python -m tests.resume.mutants`` has more schedules."""
    assert "weights" in bites(warm, mutant, [5], tmp_path)


def test_kills_inside_the_writing_of_checkpoints_leave_whole_ones_only(tmp_path: Path) -> None:
    """Twenty here; ``python -m tests.resume.torn --kills 200`` does more. It forks, so it has a process."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.resume.torn", "--kills", "20"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20 kills inside" in done.stdout and "0 torn, 0 lost" in done.stdout
