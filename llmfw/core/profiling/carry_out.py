"""A few real steps of a run, measured; nothing of them is kept."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmfw.callbacks import EarlyStopping, MaxTime, Progress, Samples, SignalWatch, Validation
from llmfw.core.assemble import Assembled
from llmfw.core.auxiliary import open_auxiliary
from llmfw.core.checkpoint import CheckpointCallback
from llmfw.core.determinism import pinned
from llmfw.core.errors import ConflictError, Interrupted, UsageError
from llmfw.core.guard import blaming
from llmfw.core.module import TrainModule
from llmfw.core.profiling.regions import Watched
from llmfw.core.profiling.report import Profile, profile_of
from llmfw.core.profiling.steps import Switch, ways
from llmfw.core.recipes import train_recipes
from llmfw.core.session import Session
from llmfw.core.tracking import Journal
from llmfw.core.training.launch import check_launch
from llmfw.core.training.prepared import prepare_data
from llmfw.core.training.strategies import check_strategy
from llmfw.core.training.train import (
    Job,
    first_batches,
    loader_of,
    reference_of,
    total_steps,
    trainer_of,
    training_of,
)

LEFT_OUT = (Validation, Samples, EarlyStopping, MaxTime, CheckpointCallback, Progress)
"""Callbacks that act between some steps, not in one."""


def profile(assembled: Assembled, *, steps: int, warmup: int, out: Path) -> Profile:
    """Train ``warmup`` + 2 ``steps`` + 2 steps of the run, and tell where their time went.

    They are the run's first steps, bit for bit: data, learning rates and random numbers are those of ``fit``.
    The trace goes to ``out/trace.json``, the figures to ``out/profile.json``; journal and weights go nowhere.

    Raises:
        UsageError: PROFILE-ROUNDS, NOTHING-TO-PROFILE.
        ConflictError: PROFILE-DEVICES.
        LlmfwError: whatever stops a run.
    """
    root = assembled.run.config
    _refuse(assembled)
    check_launch(root.trainer)
    check_strategy(assembled.plan, root)
    with (
        SignalWatch() as watch,
        pinned(root.trainer) as threads,
        tempfile.TemporaryDirectory(prefix="llmfw-profile-") as place,
        Journal(Path(place) / "journal.jsonl") as journal,
        blaming(),
        _unkept(),
    ):
        session = Session(dir=Path(place), journal=journal)
        assembled.run.dir = session.dir
        train_recipes(assembled, session)
        prepared = prepare_data(assembled, session)
        assembled.run._provide(
            rows=prepared.rows,
            held_out=prepared.validation,
            open_policy=lambda name: open_auxiliary(assembled, name),
        )
        job = Job(
            assembled=assembled,
            prepared=prepared,
            session=session,
            source=assembled.settled.source,
            watch=watch,
            at_start=lambda module: _calibrate(assembled, job, module),
        )
        out.mkdir(parents=True, exist_ok=True)
        plan = ways(steps, warmup)
        watched = Watched()
        module = _module(job, watched, len(plan))
        trainer: Any = trainer_of(job, len(plan), session.dir / "checkpoints")
        job.references.trainer = trainer
        trainer.callbacks = [one for one in trainer.callbacks if not isinstance(one, LEFT_OUT)]
        switch = Switch(module, watched, plan)
        with switch.over():
            trainer.fit(module, datamodule=job.bare)
        return profile_of(assembled, switch.measured, module=module, threads=threads, out=out)


def _module(job: Job, watched: Watched, count: int) -> TrainModule:
    """The module of the run itself; its loader also serves steps beyond the run's last."""
    whole = training_of(job, total_steps(job), job.session.dir / "checkpoints")
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
    root, plan = assembled.run.config, assembled.plan
    if plan.one("llmfw_sampler") is not None:
        raise UsageError(
            "PROFILE-ROUNDS",
            f"plugin {plan.owner('llmfw_sampler')!r} makes its data in rounds, with the policy",
            mend="run llmfw fit once, then profile a round's training on the records it kept (data=FILE)",
            key="plugins",
        )
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


def _calibrate(assembled: Assembled, job: Job, module: TrainModule) -> None:
    loss = assembled.plan.one("llmfw_loss")
    if loss.calibrate is not None:
        loss.calibrate(module.policy, first_batches(job, steps=max(1, total_steps(job))))


@contextmanager
def _unkept() -> Iterator[None]:
    try:
        yield
    except Interrupted as error:
        raise Interrupted(
            error.exit_code - 128, "stopped; nothing is kept of a profile", mend="run it again when you like"
        ) from error
