"""A few real steps of a run, measured; nothing of them is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from llmfw.callbacks import EarlyStopping, MaxTime, Progress, Samples, Validation
from llmfw.core.assemble import Assembled
from llmfw.core.checkpoint import CheckpointCallback
from llmfw.core.determinism import thread_count
from llmfw.core.errors import ConflictError, UsageError
from llmfw.core.module import TrainModule
from llmfw.core.profiling.regions import Watched
from llmfw.core.profiling.report import Profile, profile_of
from llmfw.core.profiling.steps import Switch, ways
from llmfw.core.training.train import Job, loader_of, reference_of, total_steps, trainer_of, training_of
from llmfw.core.unkept import places_of_unkept, unkept

LEFT_OUT = (Validation, Samples, EarlyStopping, MaxTime, CheckpointCallback, Progress)
"""Callbacks that act between some steps, not in one."""


def profile(assembled: Assembled, *, steps: int, warmup: int, out: Path) -> Profile:
    """Train ``warmup`` + 2 ``steps`` + 2 steps of the run, and tell where their time went.

    They are the run's first steps, bit for bit: data, learning rates and random numbers are those of ``fit``.
    The trace goes to ``out/trace.json``, the figures to ``out/profile.json``; journal and weights go nowhere.

    Raises:
        UsageError: ONLY-IN-ROUNDS, NOTHING-TO-PROFILE.
        ConflictError: PROFILE-DEVICES.
        LlmfwError: whatever stops a run.
    """
    _refuse(assembled)
    with unkept(assembled) as job:
        out.mkdir(parents=True, exist_ok=True)
        plan = ways(steps, warmup)
        watched = Watched()
        module = _module(job, watched, len(plan))
        trainer: Any = trainer_of(job, len(plan), places_of_unkept(job))
        job.references.trainer = trainer
        trainer.callbacks = [one for one in trainer.callbacks if not isinstance(one, LEFT_OUT)]
        switch = Switch(module, watched, plan)
        with switch.over():
            trainer.fit(module, datamodule=job.bare)
        threads = thread_count(assembled.run.config.trainer)
        return profile_of(assembled, switch.measured, module=module, threads=threads, out=out)


def _module(job: Job, watched: Watched, count: int) -> TrainModule:
    """The module of the run itself; its loader also serves steps beyond the run's last."""
    whole = training_of(job, total_steps(job), places_of_unkept(job))
    loader, reference = whole.loader, whole.reference
    if loader is not None:

        def loader(start: int, rank: int, world: int) -> Any:
            return loader_of(job, max_steps=count, start=start, rank=rank, world=world)

        loader = watched.loader(loader)
    if reference is not None:

        def reference(built: Any) -> Any:
            return reference_of(job, built, count)

    return TrainModule(replace(whole, loader=loader, reference=reference, meter=None))


def _refuse(assembled: Assembled) -> None:
    root = assembled.run.config
    if root.trainer.devices * root.trainer.nodes > 1:
        raise ConflictError(
            "PROFILE-DEVICES",
            "one process is profiled",
            mend="set trainer.devices=1 trainer.nodes=1",
            key="trainer.devices",
        )
    if root.trainer.max_steps == 0:
        raise UsageError(
            "NOTHING-TO-PROFILE",
            "the run has no step",
            mend="set trainer.max_steps above 0",
            key="trainer.max_steps",
        )
