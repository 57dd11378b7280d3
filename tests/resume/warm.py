"""A server that has imported everything and forks a process per command line: a launch costs seconds less.

It reads one json object a line ({"args", "env", "mutant", "log"}), answers {"pid"} and, when the process has
ended, {"code"} (negative: killed by that signal). It never trains itself, as autograd's threads don't survive
a fork.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any


def serve() -> None:
    """Import, say so, then fork a child for each line."""
    import peft
    import transformers
    from transformers.models.llama import modeling_llama

    assert peft and transformers and modeling_llama
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            _child(job)
        print(json.dumps({"pid": child}), flush=True)
        _, status = os.waitpid(child, 0)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), flush=True)


def _child(job: dict[str, Any]) -> None:
    os.setpgid(0, 0)
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(job["env"])
    code = 1
    try:
        if job["mutant"]:
            MUTANTS[job["mutant"]]()
        from llmfw.cli import run

        code = run(job["args"])
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _no_seeding() -> None:
    from llmfw.core.module import TrainModule

    TrainModule._seed = lambda self, moment: None


def _loader_from_the_start() -> None:
    from llmfw.core.module import Steps, TrainModule

    TrainModule.train_dataloader = lambda self: Steps(
        self.job.loader(0, self.trainer.global_rank, self.trainer.world_size)
    )


def _schedule_from_the_start() -> None:
    from llmfw.core import module

    real, begun = module.schedule, []

    def schedule(step: int, total: int, config: Any) -> float:
        begun.append(step)
        return real(step - begun[0], total, config)

    module.schedule = schedule


def _fresh_moments() -> None:
    from llmfw.core.checkpoint.io import SafeCheckpointIO

    real = SafeCheckpointIO.load_checkpoint

    def load(self: Any, *args: Any, **kwargs: Any) -> Any:
        checkpoint = real(self, *args, **kwargs)
        for state in checkpoint["optimizer_states"][0]["state"].values():
            state["exp_avg"].zero_()
        return checkpoint

    SafeCheckpointIO.load_checkpoint = load


def _weights_of_the_base() -> None:
    from llmfw.core.training import train

    train.load_weights = lambda built, folder: None


def _saves_inside_the_window() -> None:
    """Checkpoints before the update instead of after it: the step counts as done, its gradient is lost."""
    from llmfw.core.checkpoint.callback import CheckpointCallback

    CheckpointCallback.on_train_batch_end = lambda *args: None

    def save(self: Any, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        if self.every and (trainer.global_step + 1) % self.every == 0:
            progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
            progress.total.completed += 1
            self.save(trainer)
            progress.total.completed -= 1

    CheckpointCallback.on_before_optimizer_step = save


MUTANTS: dict[str, Callable[[], None]] = {
    "no seeding": _no_seeding,
    "loader from the start": _loader_from_the_start,
    "schedule from the start": _schedule_from_the_start,
    "fresh moments": _fresh_moments,
    "weights of the base": _weights_of_the_base,
    "saves inside the window": _saves_inside_the_window,
}

if __name__ == "__main__":
    serve()
