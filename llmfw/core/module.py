"""The LightningModule: one Lightning batch is one optimizer step, and one step is a list of micro-batches.

There are no epochs, no half-filled accumulation windows and no scheduler: the loader, the learning rate and
the random numbers of a step are functions of its number, so a run that goes on from a checkpoint is the run
that was never killed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from llmfw.core.batch import Batch, LossOutput
from llmfw.core.checkpoint.io import FILES, FOLDER, Files
from llmfw.core.determinism import generators_digest, seed_all
from llmfw.core.errors import CheckpointError, DataError, NumericsError
from llmfw.core.failpoints import failpoint
from llmfw.core.models.shards import gathered, is_sharded, piece, shard
from llmfw.core.records import NamedMetric, Policy
from llmfw.core.say import say
from llmfw.core.training.dtypes import default_dtype
from llmfw.core.training.finite import StepFacts, refuse_nonfinite
from llmfw.core.training.job import StepBatch, Steps, Training
from llmfw.core.training.optim import build_optimizer, named_groups, schedule, set_lr
from llmfw.core.training.ranks import (
    Names,
    Polls,
    average_replicas,
    clip_gradients,
    gather_rows,
    gradient_norm,
    local_state,
    take_local_state,
    total,
    world,
)
from llmfw.core.training.validation import Sums, auxiliary_of, means, units_of


@dataclass
class _Step:
    """What is known of the step under way."""

    facts: StepFacts
    sums: Sums = field(default_factory=Sums)
    tokens: list[Tensor] = field(default_factory=list)
    totals: list[Tensor] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)


class TrainModule(LightningModule):
    """Trains the policy that ``training`` describes, by manual optimization.

    ``training_step`` returns a report that callbacks find as ``outputs``: ``step`` (optimizer steps done,
    this one included), ``metrics`` (name -> float), ``loss`` (tensor), ``tokens`` and ``units`` of all
    processes, ``sample_ids`` of this one. ``polls`` are questions that every step asks on every rank.
    """

    def __init__(self, training: Training) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False  # a checkpoint holds what is trained; our own check is stricter
        self.job = training
        self.model: nn.Module | None = None
        self.companions = nn.ModuleDict()
        self.policy: Policy
        self.reference: Policy | None = None
        self.built: Any = None
        self.polls = Polls()
        self.updating = False
        """True while an optimizer step changes the weights; an exception then leaves no state worth
        saving.
        """
        self.tokens_seen = 0
        self.train_seconds = 0.0
        """Of the steps behind ``tokens_seen``, as Throughput's clock had them."""
        self.left_out = 0
        """Steps that changed nothing, because their loss or gradient wasn't finite."""
        self.stopped_by: str | None = None
        """Why training ended before ``max_steps``: early_stopping, max_time, SIGTERM or SIGINT."""
        self.latest_validation: tuple[int, Mapping[str, float]] | None = None
        """Step and values of the last validation; names carry the prefix ``validation/``."""
        self.loss_call = training.loss.call
        """What is trained; on measured steps the meter's own around it."""
        self.own_metrics: list[tuple[NamedMetric, Any]] | None = None
        """The plugins' training metrics and their states; on measured steps the meter's around them."""
        self.local_names: tuple[str, ...] = ()
        """Names of parameters that differ between processes."""
        self._names = Names(training.loss.name)
        self._step: _Step | None = None
        self._resumed = False
        self._meter = training.meter
        self._measured = frozenset[int]() if training.meter is None else training.meter.steps

    # --- set-up ---------------------------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Build model, policy and reference, once."""
        if self.built is not None:
            return
        job = self.job
        with default_dtype(torch.float32):
            built = job.build()
            self.model = built.module
            self.companions.update(dict(built.companions))
            hold = partial(object.__setattr__, self)  # what holds the model again is no submodule
            hold("built", built)
            hold("policy", job.policy(built))
            if job.settle is not None:
                job.settle(self.policy)
            if job.reference is not None:
                hold("reference", job.reference(built))
        if job.rank_local is not None:
            self.local_names = tuple(job.rank_local(built))
            # read by DistributedDataParallel when it wraps this module
            self._ddp_params_and_buffers_to_ignore = list(self.local_names)
        mesh = getattr(self._trainer and self._trainer.strategy, "mesh", None)
        if mesh is not None:
            self._shard(mesh)

    def _shard(self, mesh: Any) -> None:
        """Share the model's and the reference's parameters out over the processes; companions stay whole."""
        built, reference = self.built, getattr(self.reference, "module", None)
        if self.trainer.precision == "bf16-true":
            built.module.to(torch.bfloat16)  # Lightning does so later, when the pieces are cut
        shard(built.module, mesh)
        if isinstance(reference, nn.Module) and not is_sharded(reference):
            shard(reference, mesh)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """For work that rank 0 does alone (answers, evaluations): inside, every process holds the whole
        model. All processes enter it and wait for one another at its end.
        """
        modules = [
            m for m in (self.model, getattr(self.reference, "module", None)) if isinstance(m, nn.Module)
        ]
        with gathered(*modules):
            yield
        if world() > 1:
            self.trainer.strategy.barrier()

    def whole_weights(self) -> Mapping[str, Tensor] | None:
        """What ``Training.save`` needs beside the model where this is sharded; every process calls it."""
        if self.model is None or not is_sharded(self.model) or self.job.gather is None:
            return None
        return self.job.gather(self.built, self.trainer.is_global_zero)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over the model's parameter groups."""
        config = self.job.optimizer
        groups = named_groups(self.job.groups(self.built, config.weight_decay), self.named_parameters())
        return build_optimizer(groups, config, scaled=self._scaler is not None)

    def train_dataloader(self) -> Any:
        """Steps from where the run stands."""
        if self.job.loader is None:
            return super().train_dataloader()
        trainer = self.trainer
        return Steps(self.job.loader(trainer.global_step, trainer.global_rank, trainer.world_size))

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """To a GPU while it works on the step before: the loader pins what it hands out."""
        if isinstance(batch, StepBatch):
            return batch.to(device, non_blocking=device.type == "cuda")
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_fit_start(self) -> None:
        """Training mode (transformers loads models in evaluation mode), and the reference on this device."""
        self.train()
        module = getattr(self.reference, "module", None)
        if isinstance(module, nn.Module):
            module.to(self.device)

    def on_train_start(self) -> None:
        """Generators as they were between the last step and the next."""
        self._measure_next(self.trainer.global_step)
        self._seed("between")

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Runs after every callback's hook of the same name."""
        step = outputs["step"]
        if self._meter is not None and step in self._measured:
            self._meter.end(step)
        if step + 1 in self._measured:
            self._measure_next(step)
        self._seed("between")

    def _measure_next(self, done: int) -> None:
        if self._meter is not None and done + 1 in self._measured:
            self._meter.begin(self.device)

    def _seed(self, moment: str) -> None:
        seed_all(self.job.seed, moment, self.trainer.global_step, self.trainer.global_rank)

    # --- one optimizer step ---------------------------------------------------------------------------------

    def training_step(self, batch: Iterable[Batch], batch_idx: int) -> dict[str, Any]:
        """Forward and backward over the micro-batches, then one update."""
        done = self.trainer.global_step
        if self._meter is None or done + 1 not in self._measured:
            return self._train(batch, done)
        if self._logs(done + 1):
            self._metric_states()
        with self._meter.over(self, logs=self._logs(done + 1)):
            return self._train(batch, done)

    def _train(self, batch: Iterable[Batch], done: int) -> dict[str, Any]:
        job, micro_batches = self.job, list(batch)
        self._seed("step")
        if self._resumed:
            failpoint("train.first_batch_after_resume")
            self._resumed = False
        lr = job.optimizer.lr * schedule(done, job.max_steps, job.optimizer)
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        set_lr(optimizer.optimizer, lr)
        units = self._units(micro_batches)
        ids = [micro_batch.sample_ids for micro_batch in micro_batches]
        self._step = step = _Step(facts=StepFacts(step=done + 1, lr=lr, sample_ids=ids))
        with default_dtype(torch.float32):
            for number, micro_batch in enumerate(micro_batches, start=1):
                last = number == len(micro_batches)
                with nullcontext() if last else self._without_sync():
                    self._accumulate(step, micro_batch, units, len(micro_batches))
                if not last:
                    failpoint("train.mid_accum")
            if job.steps_per_epoch and (done + 1) % job.steps_per_epoch == 0:
                failpoint("train.last_batch_of_epoch")
            with torch.autocast(self.device.type, enabled=False):
                optimizer.step()  # calls on_before_optimizer_step once gradients are unscaled
            self.updating = False
            optimizer.zero_grad(set_to_none=True)
        self._step = None
        self._log(step.report)
        return step.report

    def _units(self, micro_batches: Sequence[Batch]) -> Tensor | float:
        """The loss's units of the whole step over all processes, known before the first backward pass."""
        unit = self.job.loss.unit
        units = total(float(sum(units_of(self.job.loss, b) for b in micro_batches)), self.device)
        if not isinstance(units, Tensor) and not units:
            names = ", ".join(name for b in micro_batches for name in b.sample_ids[:8])
            raise DataError(
                "NOTHING-TO-TRAIN", f"a step without {unit} ({names})", mend="check the data's masks"
            )
        return units

    def _accumulate(self, step: _Step, batch: Batch, units: Tensor | float, count: int) -> None:
        output: LossOutput = self.loss_call(self.policy, batch, self.reference)
        auxiliary = auxiliary_of(self.policy)
        # DDP averages over processes, and units are those of all of them
        objective = output.total * (self.trainer.world_size / units)
        if auxiliary is not None:
            objective = objective + auxiliary / count
        with torch.autocast(self.device.type, enabled=False):
            self.manual_backward(objective)
        step.totals.append(output.total.detach().double())
        step.sums.add(output, units_of(self.job.loss, batch), auxiliary)
        step.tokens.append(batch.count_real())
        if self._logs(step.facts.step):
            for metric, state in self._metric_states():
                metric.update(state, output, batch)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Look at loss and gradient norm before the weights change, clip, and gather the step's numbers.

        Raises:
            NumericsError: NON-FINITE, on every rank.
        """
        step, job, rank = self._step, self.job, self.trainer.global_rank
        assert step is not None
        parameters = {n: p for n, p in self.named_parameters() if p.requires_grad and p.grad is not None}
        if self.model is not None and is_sharded(self.model):
            average_replicas(self.companions.parameters())
        grads = {name: p.grad for name, p in parameters.items() if p.grad is not None}
        for name in self.local_names:  # DDP averages the others
            if name in grads:
                grads[name].div_(self.trainer.world_size)
        norm = gradient_norm(grads, self.local_names)
        names = self._names.agreed(step.sums.names)
        facts = [norm, sum(step.tokens), *step.totals, *step.sums.flat(names)]
        rows = gather_rows([*facts, *self.polls.ask()], norm.device)
        middle, end = 2 + len(step.totals), len(facts)
        step.facts = step.facts.of(
            norm=rows[rank][0], totals=rows[rank][2:middle], all_totals=[row[2:middle] for row in rows]
        )
        try:
            refuse_nonfinite(
                step.facts,
                run_dir=job.run_dir,
                rank=rank,
                scaler=self._scaler,
                newest=job.newest,
                parameters=lambda: [
                    name for name, grad in grads.items() if not bool(piece(grad).isfinite().all())
                ],
            )
        except NumericsError as error:
            self._leave_out(error, parameters.values())
        if job.optimizer.clip > 0 and math.isfinite(step.facts.norm):
            clip_gradients(parameters.values(), job.optimizer.clip, norm)
        self.polls.settle([row[end:] for row in rows])
        sums = [sum(column) for column in zip(*(row[middle:end] for row in rows), strict=True)]
        step.report = self._report(step.facts, names, sums, tokens=int(sum(row[1] for row in rows)))
        self.updating = True

    def _leave_out(self, error: NumericsError, parameters: Iterable[nn.Parameter]) -> None:
        """Let the update change nothing, moments included, where the run may still leave steps out; every
        rank decides the same.
        """
        if self.left_out >= self.job.skip_nonfinite:
            raise error
        self.left_out += 1
        of = f"{self.left_out} of at most {self.job.skip_nonfinite}"
        say(f"warning[STEP-LEFT-OUT] {error.what}; the step is left out ({of})")
        for parameter in parameters:
            parameter.grad = None  # what has no gradient isn't updated

    def _report(
        self, facts: StepFacts, names: Sequence[str], sums: Sequence[float], tokens: int
    ) -> dict[str, Any]:
        self.tokens_seen += tokens
        metrics = means(names, sums)
        metrics |= {"grad_norm": facts.norm, "lr": facts.lr, "tokens": float(self.tokens_seen)}
        if self.job.steps_per_epoch:
            metrics["epoch"] = facts.step / self.job.steps_per_epoch
        return {
            "step": facts.step,
            "metrics": metrics,
            "loss": torch.tensor(metrics["loss"], dtype=torch.float64),
            "tokens": tokens,
            "units": sums[2 * names.index("loss") + 1],
            "sample_ids": tuple(name for ids in facts.sample_ids for name in ids),
        }

    def _log(self, report: Mapping[str, Any]) -> None:
        if not self._logs(report["step"]):
            return
        for metric, state in self._metric_states():
            report["metrics"][metric.name] = float(state.compute())
            state.reset()
        for logger in self.trainer.loggers:
            logger.log_metrics(dict(report["metrics"]), step=report["step"])

    def _logs(self, step: int) -> bool:
        return step % self.job.log_every == 0 or step in (1, self.job.max_steps)

    def _metric_states(self) -> list[tuple[NamedMetric, Any]]:
        """The plugins' training metrics; each covers one step, so nothing of them has to be kept."""
        if self.own_metrics is None:
            self.own_metrics = [(metric, metric.factory().to(self.device)) for metric in self.job.metrics]
        return self.own_metrics

    def agreed(self, name: str) -> bool:
        """The answer of the poll ``name`` that all ranks share."""
        return self.polls.agreed(name)

    @contextmanager
    def _without_sync(self) -> Iterator[None]:
        """Keep DDP from reducing gradients that more micro-batches will add to."""
        block = getattr(self.trainer.strategy, "block_backward_sync", nullcontext)
        with block() if self.trainer.world_size > 1 else nullcontext():
            yield

    @property
    def _scaler(self) -> Any:
        return getattr(self.trainer.precision_plugin, "scaler", None)

    # --- checkpoints ----------------------------------------------------------------------------------------

    def kept_names(self) -> list[str]:
        """Names of the state that a checkpoint's dictionary holds: trained parameters (tied ones once; none
        where ``Training.save`` writes them) and persistent buffers."""
        apart, local = self.job.save is not None, set(self.local_names)
        trained = [n for n, p in self.named_parameters() if n in local or (p.requires_grad and not apart)]
        persistent = set(self.state_dict())
        return trained + [name for name, _ in self.named_buffers() if name in persistent]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what is trained; the frozen base is on disk already."""
        job, state = self.job, checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: state[name] for name in self.kept_names()}
        if self.local_names:
            checkpoint["ranks"] = local_state(checkpoint, self.local_names)
        checkpoint["llmfw"] = {
            "tokens_seen": self.tokens_seen,
            "train_seconds": self.train_seconds,
            "left_out": self.left_out,
            "generators": generators_digest(),  # never read: they are set anew at every step; to compare
        }
        if job.stream is not None:
            checkpoint["llmfw"]["stream"] = job.stream.position(int(checkpoint["global_step"]))
        held = self.whole_weights()
        more = {} if held is None else {"held": held}
        write = None if job.save is None else partial(job.save, self.built, **more)
        size = sum(p.nbytes for p in self.parameters() if p.requires_grad) if write else 0
        checkpoint[FILES] = Files(write=write, size=size, about=job.about(self.built))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint whose weights aren't exactly those that are trained here.

        Raises:
            CheckpointError: CHECKPOINT-WEIGHTS, naming the first difference.
        """
        if self.local_names:
            take_local_state(checkpoint, self.local_names, self.trainer.global_rank)
        folder = checkpoint.get(FOLDER)
        refuse_difference(checkpoint["state_dict"], self.state_dict(), self.kept_names(), folder)
        if self.job.load is not None:
            self.job.load(self.built, Path(checkpoint[FOLDER]))
        self.tokens_seen = int(checkpoint["llmfw"]["tokens_seen"])
        self.train_seconds = float(checkpoint["llmfw"].get("train_seconds", 0.0))
        self.left_out = int(checkpoint["llmfw"].get("left_out", 0))
        position = checkpoint["llmfw"].get("stream")
        if self.job.stream is not None and position is not None:
            self.job.stream.restore(int(checkpoint["global_step"]), position)
        self._resumed = True
        # the loader has no end; a checkpoint of the last step must not make a longer run stop at once
        checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["is_last_batch"] = False


def refuse_difference(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], wanted: Sequence[str], folder: str | None
) -> None:
    """Compare names and shapes of a checkpoint's weights with those wanted of ``own``.

    Raises:
        CheckpointError: CHECKPOINT-WEIGHTS, naming the first difference.
    """
    difference = [f"lacks {name}" for name in wanted if name not in state]
    difference += [f"holds {name}, which isn't trained here" for name in state if name not in set(wanted)]
    difference += [
        f"holds {name} of shape {tuple(state[name].shape)}, not {tuple(own[name].shape)}"
        for name in wanted
        if name in state and state[name].shape != own[name].shape
    ]
    if difference:
        raise CheckpointError(
            "CHECKPOINT-WEIGHTS",
            f"the checkpoint {difference[0]} ({len(difference)} differences)",
            mend="resume with the settings and plugins that the run was started with",
            file=folder,
        )
