"""The first step of a run by one process and by two that really talk to each other, compared."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from llmfw.core.errors import RunFailed
from llmfw.core.failpoints import VARIABLE
from llmfw.core.proof.kills import last_words, run_command
from llmfw.core.proof.loss import Way
from llmfw.core.schema import TrainerConfig
from llmfw.core.tracking import read_journal

TOLERANCE = 1e-5
"""Of loss and gradient norm in float32, relative."""


def two_processes(arguments: Sequence[str], trainer: TrainerConfig) -> Way | None:
    """Run one step of ``llmfw fit ARGUMENTS`` twice, on the CPU; None where its samples are odd in number.

    Raises:
        RunFailed: CHECK-RUN, a run fails.
    """
    together = trainer.micro_batch * trainer.accumulate * trainer.devices * trainer.nodes
    if together % 2:
        return None
    with tempfile.TemporaryDirectory(prefix="llmfw-check-") as place:
        one, two = (_first(arguments, Path(place), world, together) for world in (1, 2))
    apart = [abs(two[name] - one[name]) / max(abs(one[name]), 1e-12) for name in ("loss", "grad_norm")]
    return Way(
        what="two processes (DDP), in float32",
        loss=two["loss"],
        apart=apart[0],
        gradient=apart[1],
        where="the norm of all",
        held=max(apart) <= TOLERANCE,
    )


def _first(arguments: Sequence[str], place: Path, world: int, together: int) -> dict[str, float]:
    run = place / f"by-{world}"
    command = [
        *(sys.executable, "-m", "llmfw", "fit", *arguments, f"run.dir={run}", "tracking.mlflow=false"),
        *(
            "trainer.max_steps=1",
            f"trainer.devices={world}",
            "trainer.accelerator=cpu",
            "trainer.strategy=ddp",
        ),
        *("trainer.micro_batch=1", "trainer.batch=null", f"trainer.accumulate={together // world}"),
        *(
            "trainer.progress=false",
            "evaluation.metrics=[]",
            "adapter.dropout=0.0",
            f"checkpoint.dir={place / 'checkpoints'}",
        ),
    ]
    env = {key: value for key, value in os.environ.items() if key != VARIABLE}
    log = place / f"by-{world}.log"
    code = run_command(command, log=log, env=env)
    if code:
        raise RunFailed(
            "CHECK-RUN",
            f"one step with {world} processes ended with exit code {code}: {last_words(log)}",
            returncode=code,
            mend="mend the run first, or leave out --processes",
        )
    return {name: points[0][1] for name, points in read_journal(run / "journal.jsonl").series.items()}
