"""A whole run: data, training (or rounds of it), evaluations before and after, weights that are kept, a
truthful end.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llmfw.callbacks import SignalWatch, requeue
from llmfw.core.assemble import Assembled
from llmfw.core.checkpoint import read_manifest
from llmfw.core.costs import PREFIXES, Cost, peak_memory, read_cost
from llmfw.core.data import Prepared, RowsData, prepare
from llmfw.core.determinism import pinned
from llmfw.core.errors import ConflictError, DataError, Interrupted, UsageError
from llmfw.core.evaluation.own import check_evaluations
from llmfw.core.guard import blaming
from llmfw.core.measure import (
    Measured,
    flatten,
    write_down,
    write_tables,
)
from llmfw.core.models import at_folder, resolve_model, source_facts
from llmfw.core.module import TrainModule
from llmfw.core.policies import open_policy_of
from llmfw.core.records import Estimate, Policy, RolloutSampler
from llmfw.core.rounds import Ledger, RoundState, run_rounds, summaries, summarise
from llmfw.core.say import is_main_process, say
from llmfw.core.schema import TrainerConfig
from llmfw.core.session import Resume, Session, open_session, places_of
from llmfw.core.tracking import JournalView, read_journal, read_record
from llmfw.core.training.accounts import settle_costs
from llmfw.core.training.final import save_final
from llmfw.core.training.launch import check_launch, check_nested, one_voice
from llmfw.core.training.measuring import note_spent, timed_sampler, timed_transforms
from llmfw.core.training.moments import measured_at
from llmfw.core.training.prepared import make_ready, tell_streamed
from llmfw.core.training.processes import together
from llmfw.core.training.strategies import check_strategy
from llmfw.core.training.train import Job, first_batches, total_steps, train, validate_held_out


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What a run brought."""

    dir: Path
    name: str
    steps: int
    first: Mapping[str, float]
    """Training metrics of the first step."""
    last: Mapping[str, float]
    """Training metrics of the last step."""
    validation: Mapping[str, float]
    """Held-out metrics after training."""
    before: Mapping[str, float | Estimate] = field(default_factory=dict)
    """Evaluations before training."""
    after: Mapping[str, float | Estimate] = field(default_factory=dict)
    """Evaluations after training."""
    final: Path
    """Folder of the trained weights."""
    rounds: int = 0
    by_round: Sequence[Mapping[str, float | str]] = ()
    """What each round was made of, cost and brought."""
    stopped_by: str | None = None
    """Why training ended early: early_stopping, max_time; None where it went to the last step."""
    cost: Cost = field(default_factory=Cost)
    mlflow: Mapping[str, str] = field(default_factory=dict)
    unsent: int = 0


def fit(assembled: Assembled, *, resume: Resume = "never", parent: Session | None = None) -> FitResult:
    """Carry out the plan; with ``parent`` as a run nested in that one.

    Raises:
        LlmfwError: whatever stops a run, with its code, place and remedy.
    """
    root = assembled.run.config
    (check_launch if parent is None else check_nested)(root.trainer)
    check_strategy(assembled.plan, root)
    if assembled.plan.one("llmfw_sampler") is not None and root.trainer.devices * root.trainer.nodes > 1:
        raise ConflictError(
            "ROUNDS-DEVICES",
            f"the rounds of plugin {assembled.plan.owner('llmfw_sampler')!r} run in one process",
            mend="set trainer.devices=1",
            key="trainer.devices",
        )
    check_requeue(root.trainer, resume)
    if os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
        say("warning[PICKLES] TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set: no effect: no pickle is read")
    with (
        requeued(root.trainer),
        one_voice(),
        SignalWatch(usr1_stops=root.trainer.requeue) as watch,
        pinned(root.trainer),
        open_session(assembled, resume, parent=parent) as session,
        blaming(),
        together(),
        peak_memory() as peak,
    ):
        assembled.run.dir = session.dir
        for note in assembled.plan.notes:
            say(f"note: {note}")
        say(f"run {session.dir}   plan {assembled.plan.hash[:12]}")
        prepared = make_ready(assembled, session)
        check_evaluations(assembled.run)
        sampler = assembled.plan.one("llmfw_sampler")
        if sampler is None:
            result = _train(assembled, session, prepared, assembled.settled.source, watch)
        else:
            result = _rounds(assembled, session, prepared, sampler, watch)
        result = replace(result, cost=settle_costs(assembled, session, peak))
    return replace(result, mlflow=session.mlflow, unsent=session.unsent)


def check_requeue(trainer: TrainerConfig, resume: Resume) -> None:
    """Refuse a job that would begin anew each time it's put back into the queue.

    Raises:
        UsageError: REQUEUE-RESUME.
    """
    if trainer.requeue and resume == "never":
        raise UsageError(
            "REQUEUE-RESUME",
            "a job that is put back runs the same command again, and this one would begin anew",
            mend="add --resume",
            key="trainer.requeue",
        )


@contextmanager
def requeued(trainer: TrainerConfig) -> Iterator[None]:
    """Put the job back into the queue where a signal ends the block."""
    try:
        yield
    except Interrupted as error:
        if trainer.requeue and error.exit_code == 128 + signal.SIGTERM and is_main_process():
            requeue()
        raise


def _train(
    assembled: Assembled,
    session: Session,
    prepared: Prepared,
    source: Any,
    watch: SignalWatch,
    *,
    epochs: float | None = None,
) -> FitResult:
    """One training with its evaluations; weights go to ``final/`` of the session's folder."""
    job = Job(
        assembled=assembled,
        prepared=prepared,
        session=session,
        source=source,
        watch=watch,
        epochs=epochs,
        at_start=lambda module: _at_start(assembled, session, job, module),
        at_validation=lambda module: _at_validation(assembled, session, module),
    )
    if session.journal is not None and session.resumed:
        _rewind(session, job)
    module = train(job)
    return _finish(assembled, session, job, module)


def _at_start(assembled: Assembled, session: Session, job: Job, module: TrainModule) -> None:
    """Before step 1: the loss's calibration, then what is measured before training."""
    loss = assembled.plan.one("llmfw_loss")
    if loss.calibrate is not None:
        loss.calibrate(module.policy, first_batches(job, steps=max(1, total_steps(job))))
        if session.journal is not None:
            session.journal.event("calibrated", durable=True, loss=loss.name)
    for when, measured in measured_at(assembled, module, "start").items():
        if session.journal is not None:
            write_down(measured, session.journal, session.dir, step=0, when=when)
    note_spent(assembled, session)


def _at_validation(assembled: Assembled, session: Session, module: TrainModule) -> Mapping[str, float]:
    """What the evaluations of this moment say, for the log beside the held-out loss."""
    measured = measured_at(assembled, module, "validation").get("validation", Measured())
    if session.journal is not None:
        write_tables(measured, session.dir, "validation")
    note_spent(assembled, session)
    return flatten(measured.metrics)


def _finish(assembled: Assembled, session: Session, job: Job, module: TrainModule) -> FitResult:
    """Held-out loss, evaluations and weights, once training has ended."""
    assert module.policy is not None
    steps = module.trainer.global_step if total_steps(job) > 0 else 0
    final = session.dir / "final"
    found = validate_held_out(job, module)
    held = module.whole_weights()
    with module.whole():
        if session.journal is not None:
            if found:
                session.journal.metrics(steps, found, stage="validation")
            save_final(assembled, module, final, steps, held)
    told = measured_at(assembled, module, "validation", "end")
    found |= flatten(told["validation"].metrics) if told else {}
    after = told["end"].metrics if told else {}
    if session.journal is not None:
        for when, measured in told.items():
            write_down(measured, session.journal, session.dir, step=steps, when=when)
        tell_streamed(session, job.prepared, steps)
        session.journal.event(
            "trained",
            durable=True,
            steps=steps,
            stopped_by=module.stopped_by,
            tokens=module.tokens_seen,
            seconds=module.train_seconds,
        )
    return _result(
        session, assembled, final, steps=steps, found=found, after=after, stopped_by=module.stopped_by
    )


def _result(
    session: Session,
    assembled: Assembled,
    final: Path,
    *,
    steps: int,
    found: Mapping[str, float],
    after: Mapping[str, float | Estimate],
    stopped_by: str | None,
) -> FitResult:
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    before: dict[str, float] = {}
    if session.journal is not None:
        session.journal.flush()
        first, last, before = _trained(read_journal(session.dir / "journal.jsonl"))
    return FitResult(
        dir=session.dir,
        name=assembled.run.name,
        steps=steps,
        first=first,
        last=last,
        validation=found,
        before=before,
        after=after,
        final=final,
        stopped_by=stopped_by,
    )


_PARTS = ("low", "high", "n")
"""What ``flatten`` adds to an estimate's name."""


def result_of(folder: Path) -> FitResult:
    """What the finished run in a folder brought, read from its journal: equal to what ``fit`` gave.

    Raises:
        DataError: the run was trained by nobody, or its journal is gone.
    """
    rounds = sorted((folder / "rounds").glob("*/journal.jsonl"))
    inner = rounds[-1].parent if rounds else folder
    view, record = read_journal(inner / "journal.jsonl"), read_record(folder)
    ended = view.of("trained")
    if not ended:
        raise DataError("JOURNAL", "this run has trained nothing", mend="name a finished run", file=folder)
    first, last, before = _trained(view)
    at_end = _named(view, "end/")
    estimates = {name for name in at_end if {f"{name}/{part}" for part in _PARTS} <= set(at_end)}
    parts = {f"{name}/{part}" for name in estimates for part in _PARTS}
    after: dict[str, float | Estimate] = {
        name: Estimate(
            value=value, low=at_end[f"{name}/low"], high=at_end[f"{name}/high"], n=int(at_end[f"{name}/n"])
        )
        if name in estimates
        else value
        for name, value in at_end.items()
        if name not in parts
    }
    return FitResult(
        dir=folder,
        name=record.name,
        steps=int(ended[-1].fields["steps"]),
        first=first,
        last=last,
        validation=_named(view, "validation/"),
        before=before,
        after=after,
        final=inner / "final",
        rounds=len(rounds),
        by_round=summaries(folder),
        stopped_by=ended[-1].fields["stopped_by"],
        cost=read_cost(folder),
        mlflow=record.mlflow,
    )


def _trained(view: JournalView) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Training metrics of the first step and of the last, and what was measured before training."""
    trained = {
        name: points
        for name, points in view.series.items()
        if not name.startswith(("start/", "validation/", "end/", "evaluate", *PREFIXES))
    }
    first = {name: points[0][1] for name, points in trained.items()}
    last = {name: points[-1][1] for name, points in trained.items()}
    return first, last, _named(view, "start/")


def _named(view: JournalView, prefix: str) -> dict[str, float]:
    """Last values of the series whose names begin so, without that."""
    found = {name: points[-1][1] for name, points in view.series.items() if name.startswith(prefix)}
    return {name.removeprefix(prefix): value for name, value in found.items()}


def _rewind(session: Session, job: Job) -> None:
    """Forget what was written down after the checkpoint from which training goes on."""
    root = job.assembled.run.config
    newest = places_of(root.checkpoint.dir, session.dir).newest()
    assert session.journal is not None
    session.journal.rewind(read_manifest(newest).step if newest else 0)


def _ended(folder: Path) -> bool:
    """Whether the run in a folder has come to its end."""
    return (folder / "run.json").exists() and read_record(folder).status == "FINISHED"


def _rounds(
    assembled: Assembled, session: Session, prepared: Prepared, sampler: RolloutSampler, watch: SignalWatch
) -> FitResult:
    """Rounds of the sampler, each a run of its own inside this one's folder."""
    results: list[FitResult] = []

    def policy(weights: Path | None) -> Policy:
        return open_policy_of(assembled, weights)

    def train_round(state: RoundState, weights: Path | None) -> None:
        if _ended(state.folder):  # a kill came between its end and its mark
            say(f"round {state.index}: it was trained before the interruption")
            results.append(replace(result_of(state.folder), name=assembled.run.name))
        else:
            train_anew(state, weights)
        last = results[-1]
        told = summarise(state, ledger, last.last, {**last.validation, **flatten(last.after)})
        if session.journal is not None:
            numbers = {name: value for name, value in told.items() if not isinstance(value, str)}
            session.journal.metrics(
                state.index + 1, {f"round/{name}": value for name, value in numbers.items()}
            )

    def train_anew(state: RoundState, weights: Path | None) -> None:
        say(f"round {state.index}: {len(state.records)} records, from {weights or 'the base weights'}")
        settings = assembled.run.config.model
        source = resolve_model(at_folder(settings, weights)) if weights else assembled.settled.source
        with open_session(assembled, "auto", parent=session, round_dir=state.folder) as inner:
            if inner.journal is not None:
                inner.journal.metrics(0, state.notes, stage="start")
            write_tables(Measured(tables=state.tables), inner.dir, "start")
            records = RowsData(
                state.records,
                prepared.rows["validation"] if prepared.form != "problems" else (),
                name=f"round {state.index}",
            )
            inner_data = prepare(
                assembled.run.config,
                assembled.tokenizer,
                timed_transforms(assembled),
                records,
                assembled.sides,
            )
            results.append(_train(assembled, inner, inner_data, source, watch, epochs=state.epochs))

    ledger = Ledger(
        session.dir,
        budget=assembled.run.config.generation.budget,
        show=assembled.run.config.trainer.progress,
    )
    states = run_rounds(
        timed_sampler(assembled, sampler),
        session.dir,
        seed=assembled.run.seed,
        rows=prepared.rows["train"],
        services=assembled.run.service,
        policy=policy,
        train=train_round,
        keep=lambda name, final: assembled.run._keep(
            name, open_policy_of(assembled, final), str(source_facts(resolve_model(str(final)))["weights"])
        ),
        ledger=ledger,
    )
    if not states:
        raise DataError(
            "ROUNDS-NONE",
            f"sampler {sampler.name!r} gave no round at all",
            mend="look at its settings: nothing was trained",
        )
    told = summaries(session.dir)
    if results:
        return replace(results[-1], dir=session.dir, rounds=len(states), by_round=told)
    whole = _result(
        session, assembled, states[-1].final, steps=0, found={}, after={}, stopped_by=None
    )  # fmt: skip
    return replace(whole, rounds=len(states), by_round=told)
