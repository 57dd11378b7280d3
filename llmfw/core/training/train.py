"""One training: from prepared data and base weights to trained weights, through Lightning."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

from lightning.pytorch import Callback, LightningDataModule, Trainer

from llmfw.callbacks import (
    EarlyStopping,
    MaxTime,
    Progress,
    Samples,
    Signals,
    SignalWatch,
    Spikes,
    Throughput,
    Validation,
)
from llmfw.core.assemble import Assembled
from llmfw.core.checkpoint import CheckpointCallback, Places, SafeCheckpointIO
from llmfw.core.data import StepLoader, StreamLoader, source_of, validation_batches
from llmfw.core.data.loader import gpu_waits
from llmfw.core.errors import ConflictError, UsageError
from llmfw.core.generation import prompt_of
from llmfw.core.models import (
    build_model,
    load_weights,
    parameter_groups,
    rank_local_names,
    ready_to_train,
    save_weights,
    weights_manifest,
    whole_weights,
)
from llmfw.core.module import TrainModule
from llmfw.core.policies import policy_over, surgeries_of
from llmfw.core.records import Loss, Policy, Row
from llmfw.core.say import say
from llmfw.core.session import Session, places_of
from llmfw.core.tracking import Journal, JournalLogger
from llmfw.core.training.job import Training
from llmfw.core.training.launch import environment
from llmfw.core.training.layout import Layer, layouts_of, settle
from llmfw.core.training.measuring import callbacks_of, meter_of, timed_metrics
from llmfw.core.training.references import References, reference_policy
from llmfw.core.training.strategies import strategy_of
from llmfw.core.training.validation import validate

if TYPE_CHECKING:
    from llmfw.core.batch import Batch
    from llmfw.core.data import Prepared

_LOOKED_AT = 4096
"""Samples of which the share of common prompts is taken."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one training works on. ``source``: the weights to start from; ``at_start`` runs before step 1."""

    assembled: Assembled
    prepared: Prepared
    session: Session
    source: Any
    at_start: Callable[[TrainModule], None]
    watch: SignalWatch
    references: References = field(default_factory=References)
    layer: Layer = field(default_factory=Layer)
    at_validation: Callable[[TrainModule], Mapping[str, float]] = lambda module: {}
    """What else is measured at each validation, by name; every process makes this call."""
    epochs: float | None = None
    """Passes over the data, where the settings don't say it: a round's."""

    @property
    def bare(self) -> LightningDataModule | None:
        """A plugin's own LightningDataModule, which yields batches itself; None where the core makes them."""
        source = self.assembled.plan.one("llmfw_datamodule")
        return source if isinstance(source, LightningDataModule) else None


def train(job: Job) -> TrainModule:
    """Train to the last step, from the newest checkpoint that verifies where a run is resumed."""
    root = job.assembled.run.config
    steps = total_steps(job)
    places = places_of(root.checkpoint.dir, job.session.dir)
    resume = places.newest() if job.session.resumed else None
    if job.session.resumed:
        place = f"from step {int(resume.name.rsplit('-', 1)[1])} ({resume})" if resume else "from the start"
        say(f"resuming {job.session.dir} {place}")
    training = training_of(job, steps, places)
    module = TrainModule(training)
    if steps == 0:
        module.configure_model()
        job.at_start(module)
        return module
    trainer = job.references.trainer = trainer_of(job, steps, places)
    try:
        with job.assembled.run._spent.once(callbacks_of(job.assembled.plan)):
            path = str(resume) if resume else None
            trainer.fit(module, datamodule=job.bare, ckpt_path=path, weights_only=True)
    finally:
        if training.meter is not None:
            training.meter.stop()
    return module


def total_steps(job: Job) -> int:
    """Optimizer steps: ``trainer.max_steps``, or ``trainer.epochs`` passes over the data (default: one).

    Where the job itself says how many passes, ``trainer.max_steps`` bounds them.
    """
    trainer = job.assembled.run.config.trainer
    if trainer.max_steps is not None and job.epochs is None:
        return trainer.max_steps
    if job.bare is not None:
        raise UsageError(
            "STEPS",
            "a bare LightningDataModule has no length in optimizer steps",
            mend="set trainer.max_steps",
            key="trainer.max_steps",
        )
    per_epoch = loader_of(job, max_steps=1).steps_per_epoch
    assert per_epoch is not None  # a stream has max_steps
    epochs = trainer.epochs if job.epochs is None else job.epochs
    steps = max(1, math.ceil((1.0 if epochs is None else epochs) * per_epoch))
    return steps if trainer.max_steps is None else min(steps, trainer.max_steps)


def held_out(job: Job, *, rank: int = 0, world: int = 1) -> list[Batch]:
    """The held-out batches, at most ``trainer.validation_limit`` samples."""
    trainer = job.assembled.run.config.trainer
    pad = job.assembled.tokenizer.pad_token_id
    return validation_batches(
        job.prepared.validation,
        job.references.collate or job.layer,
        micro_batch=trainer.micro_batch,
        limit=trainer.validation_limit,
        rank=rank,
        world=world,
        pad_id=pad,
    )


def first_batches(job: Job, steps: int) -> Iterator[Batch]:
    """Micro-batches of the training data from its start, for a loss's calibration."""
    for step in loader_of(job, max_steps=steps, world=1):
        yield from step


def manifest_of(assembled: Assembled, built: Any) -> dict[str, Any]:
    """What a folder of weights says of itself: model, adapter, plugins and where they come from, surgeries,
    fingerprint.
    """
    about = weights_manifest(built, assembled.run.config, assembled.resolved.plugin_settings)
    return {**about, "fingerprint": assembled.plan.fingerprint, "distributions": dict(assembled.plan.plugins)}


def loader_of(
    job: Job, *, max_steps: int, start: int = 0, rank: int = 0, world: int | None = None
) -> StepLoader | StreamLoader:
    """The steps of a run of ``max_steps`` from ``start`` on, as process ``rank`` of ``world`` gets them."""
    root = job.assembled.run.config
    pad = job.assembled.tokenizer.pad_token_id
    collate = job.references.collate or job.layer
    alike: dict[str, Any] = {
        "micro_batch": root.trainer.micro_batch,
        "accumulate": root.trainer.accumulate,
        "seed": root.seed,
        "max_steps": max_steps,
        "start_step": start,
        "rank": rank,
        "world": root.trainer.devices * root.trainer.nodes if world is None else world,
        "workers": root.data.workers,
        "group_by_length": root.data.group_by_length,
        "pin": gpu_waits(root.trainer.accelerator),
        "pad_id": pad,
    }
    if job.prepared.stream is not None:
        return StreamLoader(job.prepared.stream, collate, **alike)
    order, mix = job.prepared.order, job.prepared.mix
    return StepLoader(job.prepared.train, collate, **alike, order=order, mix=mix)


class _AtStart(Callback):
    """Runs what comes before the first optimizer step, where the run begins there."""

    def __init__(self, run: Callable[[TrainModule], None]) -> None:
        self._run = run

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Before step 1."""
        if trainer.global_step == 0:
            self._run(pl_module)


class _Consumed(Callback):
    """Writes down which samples each optimizer step consumed: of several processes, those dealt out to all,
    once it's sure that this one had its share of them.
    """

    def __init__(self, journal: Journal, sample_ids: Callable[[int], Sequence[str]]) -> None:
        self._journal, self._sample_ids = journal, sample_ids

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """One event per step; a rewind takes it back with the step's values."""
        step, had = trainer.global_step, list(outputs["sample_ids"])
        if trainer.world_size > 1:
            dealt = list(self._sample_ids(step - 1))
            if not set(had) <= set(dealt):
                raise RuntimeError(f"step {step} had {had}, which weren't among those dealt out: {dealt}")
            had = dealt
        self._journal.event("consumed", step=step, sample_ids=had)


def training_of(job: Job, steps: int, places: Places) -> Training:
    """What the run's module needs to know; checkpoints lie in ``places``.

    Raises:
        ConflictError: LOSS-DATA, the data isn't of the loss's form.
    """
    assembled = job.assembled
    root = assembled.run.config
    loss: Loss = assembled.plan.one("llmfw_loss")
    if loss.batch_kind == "preference" and job.prepared.form != "preference" and job.bare is None:
        raise ConflictError(
            "LOSS-DATA",
            f"the loss {loss.name!r} wants preference pairs, the data has {job.prepared.form} rows",
            mend="give it rows with prompt, chosen and rejected (data=FILE)",
            key="data.name",
        )
    return Training(
        build=lambda: ready_to_train(
            build_model(
                job.source, root.adapter, surgeries_of(assembled), root.seed, tokenizer=assembled.tokenizer
            ),
            root.trainer,
        ),
        policy=lambda built: policy_over(assembled, built),
        loss=loss,
        optimizer=root.optimizer,
        groups=parameter_groups,
        loader=None
        if job.bare is not None
        else lambda start, rank, world: loader_of(job, max_steps=steps, start=start, rank=rank, world=world),
        max_steps=steps,
        run_dir=job.session.dir,
        seed=root.seed,
        settle=None if job.bare is not None else lambda policy: _settle(job, policy),
        reference=(lambda built: reference_of(job, built, steps)) if loss.needs_reference else None,
        metrics=assembled.plan.many("llmfw_metrics/train"),
        skip_nonfinite=root.trainer.skip_nonfinite,
        log_every=root.trainer.log_every,
        steps_per_epoch=None if job.bare is not None else loader_of(job, max_steps=steps).steps_per_epoch,
        newest=places.newest,
        rank_local=rank_local_names,
        save=save_weights,
        gather=lambda built, keep: whole_weights(built, keep=keep),
        load=load_weights,
        about=lambda built: manifest_of(assembled, built),
        stream=job.prepared.stream,
        meter=meter_of(assembled.plan, root.trainer, steps, job.session),
    )


def _callbacks(job: Job, steps: int, places: Places) -> list[Callback]:
    """Lightning's callbacks in the order in which they act at a step's end; the checkpoint comes last."""
    root, journal = job.assembled.run.config, job.session.journal
    trainer, stopping = root.trainer, root.trainer.early_stopping
    found: list[Callback] = [Throughput(trainer.log_every), _AtStart(job.at_start)]
    if journal is not None and job.bare is None:
        found.append(_Consumed(journal, loader_of(job, max_steps=steps).sample_ids))
    if trainer.spike_factor is not None:
        found.append(Spikes(job.session.dir, trainer.spike_factor))
    found.append(
        Validation(
            lambda module: {**validate_held_out(job, module), **job.at_validation(module)},
            trainer.validate_every,
            job.watch,
        )
    )
    if stopping.metric is not None:
        mode = cast(Literal["min", "max"], stopping.mode)
        found.append(
            EarlyStopping(
                stopping.metric, mode=mode, patience=stopping.patience, min_delta=stopping.min_delta
            )
        )
    if trainer.sample_every:
        prompts = sample_prompts(
            job.prepared.rows["validation"] or job.prepared.rows["train"], trainer.sample_prompts
        )
        found.append(Samples(_answers, prompts, trainer.sample_every, watch=job.watch))
    found += job.assembled.plan.many("llmfw_callbacks")
    if trainer.progress:
        found.append(Progress())
    if trainer.max_time is not None:
        found.append(MaxTime(trainer.max_time))
    found.append(Signals(job.watch))
    kept = root.checkpoint
    saves = CheckpointCallback(
        places, every=kept.every, keep=kept.keep, background=kept.background, minutes=kept.minutes
    )
    return [*found, saves]


def validate_held_out(job: Job, module: TrainModule) -> dict[str, float]:
    """Mean loss and metrics over the held-out samples, each process its share; {} where there are none."""
    plan = job.assembled.plan
    trainer = module.trainer if module._trainer is not None else None
    rank, world = (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)
    batches = held_out(job, rank=rank, world=world)
    if not batches:
        return {}
    assert module.policy is not None
    metrics = timed_metrics(job.assembled)
    loss = plan.one("llmfw_loss")
    source = source_of(job.prepared.validation)
    found = validate(module.policy, loss, module.reference, batches, metrics, shared=world > 1, source=source)
    return dict(found.metrics)


def sample_prompts(rows: Sequence[Row], count: int) -> list[Any]:
    """The first ``count`` different prompts."""
    found: list[Any] = []
    for row in rows:
        prompt = prompt_of(row)
        if len(found) < count and prompt not in found:
            found.append(prompt)
    return found


def _answers(module: TrainModule, prompts: Sequence[Any]) -> list[str]:
    assert module.policy is not None
    return [completion.text for completion in module.policy.generate(list(prompts))]


def _settle(job: Job, policy: Policy) -> None:
    """Settle the layout of the run's batches, and tell it."""
    assembled = job.assembled
    layouts = layouts_of(assembled.plan, assembled.run.config, assembled.model_config)
    job.layer.pad_id = assembled.tokenizer.pad_token_id
    prepared = job.prepared
    lengths = (len(one) for example in prepared.train for one in example.sequences)
    longest = max(lengths, default=prepared.max_length)
    told = settle(layouts, policy, prepared.head(_LOOKED_AT), job.layer, longest)
    say(told)
    if job.session.journal is not None:
        job.session.journal.event("layout", layout=job.layer.layout, told=told)


def reference_of(job: Job, built: Any, steps: int) -> Policy:
    """The reference model of a run of so many steps, or the cache that stands for it."""
    return reference_policy(job, built, job.layer, lambda: sample_ids(job, steps))


def sample_ids(job: Job, steps: int) -> set[str]:
    """The ids of the samples that so many optimizer steps consume."""
    loader = loader_of(job, max_steps=steps)
    return {name for step in range(steps) for name in loader.sample_ids(step)}


def trainer_of(job: Job, steps: int, places: Places) -> Trainer:
    """Lightning's trainer with the callbacks of a run of so many steps."""
    for name in ("lightning.pytorch", "lightning.fabric"):  # advertisements, lists of devices and processes
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", module="lightning")
    assembled, session = job.assembled, job.session
    root = assembled.run.config
    return Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator=root.trainer.accelerator,
        devices=root.trainer.devices,
        num_nodes=root.trainer.nodes,
        strategy=strategy_of(root.trainer),
        precision=root.trainer.precision,  # type: ignore[arg-type]  # one of the schema's choices
        logger=JournalLogger(session.journal, assembled.run.name),
        callbacks=_callbacks(job, steps, places),
        plugins=[plugin for plugin in (SafeCheckpointIO(), environment()) if plugin is not None],
        default_root_dir=session.dir,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        deterministic=root.trainer.deterministic,
    )
