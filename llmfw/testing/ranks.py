"""A run in two processes on the CPU, and what each of them saw.

Lightning starts the second process by running the first one's command again, so this is a command:

    python -m llmfw.testing.ranks FOLDER

FOLDER holds ``words.json``, the run's settings and plugins; each process leaves ``rank-N.json`` there.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmfw.testing.laws import broken

_LIMIT = 300
"""Seconds after which the two processes are taken to hang."""
_OURS = ("LLMFW_", "LOCAL_RANK", "RANK", "WORLD_SIZE", "MASTER_", "NODE_RANK", "GROUP_RANK", "PL_", "SLURM_")
"""Beginnings of variables that tell a process who it is among others."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one process saw. ``weights``: parameter -> SHA-256 of its values after the last step, without
    those that are rank-local.
    """

    plan: str
    weights: dict[str, str]


def in_two_processes(words: Sequence[str], plugins: Sequence[str], folder: Path) -> list[Seen]:
    """Carry out a run with ``trainer.devices=2``; its folder is ``folder/run``.

    Raises:
        Violation: it fails, or doesn't end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    two = [
        "trainer.devices=2",
        "trainer.strategy=ddp",
        "trainer.accelerator=cpu",
        f"run.dir={folder / 'run'}",
    ]
    told = {"words": [*words, *two], "plugins": list(plugins)}
    (folder / "words.json").write_text(json.dumps(told), encoding="utf-8")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(_OURS)}
    environment |= {"PYTHONPATH": os.pathsep.join(place or os.getcwd() for place in sys.path)}
    with subprocess.Popen(  # this interpreter, this module
        [sys.executable, "-m", "llmfw.testing.ranks", str(folder.absolute())],
        env=environment | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as first:
        try:
            _, said = first.communicate(timeout=_LIMIT)
        except subprocess.TimeoutExpired:
            raise broken(
                f"a run in two processes doesn't end within {_LIMIT} s",
                mend="let every process make the same collective calls, in the same order",
            ) from None
        finally:  # the second process too, which the first one started
            with suppress(ProcessLookupError):
                os.killpg(first.pid, signal.SIGKILL)
    if first.returncode:
        lines = [line for line in said.splitlines() if "rror" in line] or said.splitlines()
        raise broken(
            f"a run in two processes fails: {lines[-1] if lines else f'exit code {first.returncode}'}",
            mend="let every process do the same",
        )
    return [Seen(**json.loads((folder / f"rank-{rank}.json").read_text())) for rank in (0, 1)]


def _main(folder: Path) -> None:
    from lightning.pytorch import Callback

    from llmfw.core.assemble import assemble, settle
    from llmfw.core.fit import fit
    from llmfw.core.manager import Answer
    from llmfw.core.models.surgery import all_parameters

    told = json.loads((folder / "words.json").read_text())
    assembled = assemble(settle(plugins=tuple(told["plugins"]), overrides=tuple(told["words"])), "fit")
    plan = assembled.plan

    class Witness(Callback):
        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            built = pl_module.built
            weights = {
                name: hashlib.sha256(value.detach().cpu().double().numpy().tobytes()).hexdigest()
                for name, value in all_parameters(built.module, built.companions).items()
                if name not in built.rank_local
            }
            seen = {"plan": plan.hash, "weights": weights}
            (folder / f"rank-{trainer.global_rank}.json").write_text(json.dumps(seen), encoding="utf-8")

    callbacks = (*plan.answers["llmfw_callbacks"], Answer(told["plugins"][-1], Witness()))
    witnessed = replace(plan, answers={**plan.answers, "llmfw_callbacks": callbacks})
    fit(replace(assembled, plan=witnessed))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
