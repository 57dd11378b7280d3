"""Trials: the same command line, untouched and killed, on a tiny model; launched from a warm process."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmfw.core.proof.facts import Finding, compare, consumed, lost_steps
from llmfw.core.tracking import read_journal

ROOT = Path(__file__).resolve().parents[2]
STEPS, EVERY = 10, 3
COMMON = (
    "model=tiny-llama",
    "trainer.micro_batch=2",
    f"trainer.max_steps={STEPS}",
    f"checkpoint.every={EVERY}",
    "optimizer.lr=1e-3",
    "tracking.mlflow=false",
    "trainer.progress=false",
    "generation.max_new_tokens=4",
    "data.validation=0.15",
)
LORA = ("adapter.kind=lora", "adapter.r=4", "adapter.dropout=0.3")
FULL = ("model.config.attention_dropout=0.2",)
Kills = Sequence[str | int]
"""One a launch: a failpoint, or SIGKILL after so many steps of that launch."""


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
        self,
        args: Sequence[str],
        folder: Path,
        *,
        failpoint: str = "",
        mutant: str = "",
        after: int | None = None,
    ) -> int:
        """Run one command line, its words in ``folder/log.txt``; ``after``: SIGKILL to its process group once
        it has done so many steps.
        """
        env = {"LLMFW_FAILPOINT": failpoint}
        job = {"args": list(args), "env": env, "mutant": mutant, "log": str(folder / "log.txt")}
        assert self.process.stdin is not None
        journal = folder / "run" / "journal.jsonl"
        before = _steps(journal)
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        pid = self._answer()["pid"]
        if after is not None:
            _kill_after(pid, journal, before + after)
        return int(self._answer()["code"])

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


def _steps(journal: Path) -> int:
    """Steps that were ever done, those done twice counted twice."""
    return journal.read_bytes().count(b'\n{"t":"consumed"') if journal.exists() else 0


def _kill_after(pid: int, journal: Path, steps: int) -> None:
    give_up = time.monotonic() + 120
    while _steps(journal) < steps and time.monotonic() < give_up:
        time.sleep(0.002)
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
    os.killpg(pid, signal.SIGKILL)


def write_data(folder: Path, rows: int = 23, first: int = 0) -> dict[str, Path]:
    """Files of preference pairs and of answers, with prompts from number ``first`` on."""
    chance = random.Random(first)
    numbers = range(first, first + rows)
    files = {
        "pairs": [
            {
                "prompt": f"Say {i}",
                "chosen": "yes " * chance.randint(1, 6),
                "rejected": "no " * chance.randint(1, 6),
            }
            for i in numbers
        ],
        "answers": [
            {"prompt": f"Count to {i}", "completion": " ".join(map(str, range(i % 9 + 1)))} for i in numbers
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, items in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return {name: folder / f"{name}.jsonl" for name in files}


@dataclass(frozen=True)
class Ran:
    """A run that came to its end, and how often it was killed on the way."""

    folder: Path
    kills: int


def run(
    warm: Warm, folder: Path, args: Sequence[str], kills: Kills, *, mutant: str = "", all_come: bool = True
) -> Ran:
    """Launch the same command until it ends well, with one kill a launch as scheduled.

    ``all_come`` False: a failpoint that a launch doesn't reach any more (it goes on behind it) is no failure.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = ["fit", *args, f"run.dir={folder / 'run'}", "--resume"]
    todo, came = list(kills), 0
    while True:
        kill = todo.pop(0) if todo else None
        code = warm.launch(
            command,
            folder,
            failpoint=kill if isinstance(kill, str) else "",
            after=kill if isinstance(kill, int) else None,
            mutant=mutant,
        )
        said = (folder / "log.txt").read_text()[-2000:]
        if code == 0 and (kill is None or not all_come):
            return Ran(folder / "run", came)
        assert kill is not None and code == -signal.SIGKILL, f"{kill or 'nothing'} ended it ({code}): {said}"
        came += 1


def compared(whole: Path, killed: Path) -> list[Finding]:
    """What must be equal, compared; and that a kill cost no more than the steps between two checkpoints.

    Raises:
        AssertionError: a run isn't one of ``STEPS`` steps.
    """
    view = read_journal(killed / "journal.jsonl")
    assert len(consumed(view)) == len(view.series["loss"]) == STEPS
    most = max(lost_steps(view), default=0)
    said = f"at most {most} a kill"
    return [
        *compare(whole, killed, "A"),
        Finding(what="lost", equal=most <= EVERY, held=most <= EVERY, said=said),
    ]
