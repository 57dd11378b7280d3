"""A run's data, models and settings made ready for a few real steps, of which nothing is kept."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llmfw.callbacks import SignalWatch
from llmfw.core.assemble import Assembled
from llmfw.core.checkpoint import Places
from llmfw.core.determinism import pinned
from llmfw.core.errors import UsageError
from llmfw.core.guard import blaming
from llmfw.core.module import TrainModule
from llmfw.core.plan import Plan
from llmfw.core.session import Session
from llmfw.core.tracking import Journal
from llmfw.core.training.launch import check_launch
from llmfw.core.training.prepared import make_ready
from llmfw.core.training.strategies import check_strategy
from llmfw.core.training.train import Job, first_batches, total_steps


@contextmanager
def unkept(assembled: Assembled) -> Iterator[Job]:
    """The job of a run whose folder lasts as long as the block. Caches and recipes are kept where ``fit``
    keeps them.

    Raises:
        UsageError: ONLY-IN-ROUNDS, a sampler makes the data.
        LlmfwError: whatever stops a run before its first step.
    """
    _refuse_rounds(assembled.plan)
    root = assembled.run.config
    check_launch(root.trainer)
    check_strategy(assembled.plan, root)
    with (
        SignalWatch(mend="run it again when you like: nothing is kept") as watch,
        pinned(root.trainer),
        tempfile.TemporaryDirectory(prefix="llmfw-unkept-") as place,
        Journal(Path(place) / "journal.jsonl") as journal,
        blaming(),
    ):
        session = Session(dir=Path(place), journal=journal)
        assembled.run.dir = session.dir
        prepared = make_ready(assembled, session)
        job = Job(
            assembled=assembled,
            prepared=prepared,
            session=session,
            source=assembled.settled.source,
            watch=watch,
            at_start=lambda module: calibrate(job, module),
        )
        yield job


def places_of_unkept(job: Job) -> Places:
    """Where its checkpoints would lie."""
    return Places(job.session.dir / "checkpoints")


def _refuse_rounds(plan: Plan) -> None:
    if plan.one("llmfw_sampler") is not None:
        raise UsageError(
            "ONLY-IN-ROUNDS",
            f"plugin {plan.owner('llmfw_sampler')!r} makes its data in rounds, with the policy",
            mend="run llmfw fit once, then do this with the records that a round kept (data=FILE)",
            key="plugins",
        )


def calibrate(job: Job, module: TrainModule) -> None:
    """What the loss does once before step 1."""
    loss = job.assembled.plan.one("llmfw_loss")
    if loss.calibrate is not None:
        loss.calibrate(module.policy, first_batches(job, steps=max(1, total_steps(job))))
