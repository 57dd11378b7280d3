"""The LightningModule: one Lightning batch is one optimizer step, and one step is a list of micro-batches.

There are no epochs, no half-filled accumulation windows and no scheduler: the loader, the learning rate and the random
numbers of a step are functions of its number, so a run that goes on from a checkpoint is the run that was never killed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from llmfw.core.batch import Batch, LossOutput
from llmfw.core.determinism import seed_all
from llmfw.core.errors import CheckpointError, DataError, PluginError
from llmfw.core.failpoints import failpoint
from llmfw.core.finite import StepFacts, refuse_nonfinite
from llmfw.core.optim import build_optimizer, named_groups, schedule, set_lr
from llmfw.core.records import Loss, NamedMetric, Policy
from llmfw.core.schema import OptimizerConfig
from llmfw.core.validation import Sums, auxiliary_of, means, units_of


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a training run is made of; the factories are called inside Lightning's ``configure_model``.

    build: the model after every surgery; it has ``module`` (an nn.Module) and ``companions`` (name -> nn.Module).
    policy, reference: façades over what ``build`` gave; reference None where the loss wants none.
    groups: (built, weight_decay) -> parameter groups of the optimizer.
    loader: (start_step, rank, world) -> one list of micro-batches per optimizer step, from ``start_step`` on.
    rank_local: names of parameters (as in this module's ``state_dict``) that differ between processes.
    newest: the newest durable checkpoint, for messages.
    """

    build: Callable[[], Any]
    policy: Callable[[Any], Policy]
    loss: Loss
    optimizer: OptimizerConfig
    groups: Callable[[Any, float], Sequence[Mapping[str, Any]]]
    loader: Callable[[int, int, int], Iterable[Sequence[Batch]]]
    max_steps: int
    run_dir: Path
    seed: int
    reference: Callable[[Any], Policy | None] | None = None
    metrics: Sequence[NamedMetric] = ()
    rank_local: Callable[[Any], Sequence[str]] | None = None
    log_every: int = 1
    steps_per_epoch: float | None = None
    newest: Callable[[], Path | None] = lambda: None


class StepBatch:
    """The micro-batches of one optimizer step; moves between devices as one. Iterate over it, index it, take its length."""

    def __init__(self, micro_batches: Iterable[Batch]) -> None:
        self.micro_batches = tuple(micro_batches)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> StepBatch:
        """The step with every tensor on ``device``."""
        return StepBatch(batch.to(device, non_blocking=non_blocking) for batch in self.micro_batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.micro_batches)

    def __len__(self) -> int:
        return len(self.micro_batches)

    def __getitem__(self, index: int) -> Batch:
        return self.micro_batches[index]


class _Steps:
    """An iterable without length or state: Lightning then neither counts epochs nor restores a position."""

    def __init__(self, steps: Iterable[Sequence[Batch]]) -> None:
        self._steps = steps

    def __iter__(self) -> Iterator[StepBatch]:
        return (StepBatch(step) for step in self._steps)


@dataclass
class _Progress:
    """What is known of the step under way."""

    step: int
    facts: StepFacts
    sums: Sums = field(default_factory=Sums)
    tokens: list[Tensor] = field(default_factory=list)
    totals: list[Tensor] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)


class TrainModule(LightningModule):
    """Trains the policy that ``training`` describes, by manual optimization.

    ``training_step`` returns a report that callbacks find as ``outputs``: ``step`` (optimizer steps done, this one
    included), ``metrics`` (name -> float), ``loss`` (tensor), ``tokens`` and ``units`` of all processes, ``sample_ids`` of
    this one. ``polls`` are questions (signals, time) that every step asks on every rank; ``agreed(name)`` is the
    answer that all ranks share.
    """

    def __init__(self, training: Training) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False  # a checkpoint holds what is trained; our own check is stricter
        self.training_setup = training
        self.model: nn.Module | None = None
        self.companions = nn.ModuleDict()
        self.policy: Policy | None = None
        self.reference: Policy | None = None
        self.built: Any = None
        self.polls: dict[str, Callable[[], bool]] = {}
        self.updating = False
        """True while an optimizer step changes the weights; an exception then leaves no state worth saving."""
        self.tokens_seen = 0
        self.stopped_by: str | None = None
        """Why training ended before ``max_steps``: early_stopping, max_time, or a signal's name."""
        self.latest_validation: tuple[int, Mapping[str, float]] | None = None
        self._answers: dict[str, bool] = {}
        self._names: tuple[str, ...] | None = None
        self._progress: _Progress | None = None
        self._resumed = False

    # --- set-up -------------------------------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Build model, policy and reference, once."""
        if self.built is not None:
            return
        setup = self.training_setup
        with _default_dtype(torch.float32):
            built = setup.build()
            self.model = built.module
            self.companions.update(dict(built.companions))
            object.__setattr__(self, "built", built)  # not a submodule a second time
            object.__setattr__(self, "policy", setup.policy(built))
            if setup.reference is not None:
                object.__setattr__(self, "reference", setup.reference(built))
        if setup.rank_local is not None:
            # read by DistributedDataParallel when it wraps this module
            self._ddp_params_and_buffers_to_ignore = list(setup.rank_local(built))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over the model's parameter groups."""
        setup = self.training_setup
        groups = named_groups(setup.groups(self.built, setup.optimizer.weight_decay), self.named_parameters())
        return build_optimizer(groups, setup.optimizer, scaled=self._scaler is not None)

    def train_dataloader(self) -> _Steps:
        """Steps from where the run stands."""
        trainer = self.trainer
        return _Steps(self.training_setup.loader(trainer.global_step, trainer.global_rank, trainer.world_size))

    def on_fit_start(self) -> None:
        """Training mode (transformers loads models in evaluation mode), and the reference on this process's device."""
        self.train()
        if isinstance(getattr(self.reference, "module", None), nn.Module):
            assert self.reference is not None
            self.reference.module.to(self.device)

    def on_train_start(self) -> None:
        """Generators as they were between the last step and the next."""
        self._seed("between")

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Runs after every callback's hook of the same name."""
        self._seed("between")

    def _seed(self, moment: str) -> None:
        seed_all(self.training_setup.seed, moment, self.trainer.global_step, self.trainer.global_rank)

    # --- one optimizer step -------------------------------------------------------------------------------------

    def training_step(self, batch: Iterable[Batch], batch_idx: int) -> dict[str, Any]:
        """Forward and backward over the micro-batches, then one update."""
        setup, micro_batches = self.training_setup, list(batch)
        step = self.trainer.global_step
        self._seed("step")
        if self._resumed:
            failpoint("train.first_batch_after_resume")
            self._resumed = False
        optimizer = self.optimizers()
        lr = setup.optimizer.lr * schedule(step, setup.max_steps, setup.optimizer)
        set_lr(optimizer.optimizer, lr)
        units = self._global_units(micro_batches)
        ids = [mb.sample_ids for mb in micro_batches]
        self._progress = _Progress(step=step + 1, facts=StepFacts(step=step + 1, lr=lr, sample_ids=ids))
        with _default_dtype(torch.float32):
            for index, micro_batch in enumerate(micro_batches):
                last = index == len(micro_batches) - 1
                with nullcontext() if last else self._without_sync():
                    self._accumulate(micro_batch, units, len(micro_batches))
                if not last:
                    failpoint("train.mid_accum")
            with torch.autocast(self.device.type, enabled=False):
                optimizer.step()  # calls on_before_optimizer_step once gradients are unscaled
            self.updating = False
            optimizer.zero_grad(set_to_none=True)
        report, self._progress = self._progress.report, None
        self._log(report)
        return report

    def _accumulate(self, batch: Batch, units: Tensor | float, count: int) -> None:
        setup, progress = self.training_setup, self._progress
        assert progress is not None
        output: LossOutput = setup.loss.call(self.policy, batch, self.reference)
        assert self.policy is not None
        auxiliary = auxiliary_of(self.policy)
        # DDP averages over processes, and units are those of all of them
        objective = output.total * (self.trainer.world_size / units)
        if auxiliary is not None:
            objective = objective + auxiliary / count
        with torch.autocast(self.device.type, enabled=False):
            self.manual_backward(objective)
        progress.totals.append(output.total.detach().double())
        progress.sums.add(output, units_of(setup.loss, batch), auxiliary)
        progress.tokens.append(_real_tokens(batch))
        if self._logs(progress.step):
            for metric, state in self._own_metrics():
                metric.update(state, output, batch)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Look at loss and gradient norm before the weights change, clip, and gather the step's numbers.

        Raises:
            NumericsError: NON-FINITE, on every rank.
        """
        setup, progress = self.training_setup, self._progress
        assert progress is not None
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = self._norm(optimizer, grads)
        names = self._agreed_names(progress.sums.names)
        rows = self._gathered(
            [norm.double(), torch.stack(progress.tokens).sum().double(), *progress.totals, *progress.sums.flat(names)]
        )
        polled = len(self.polls)
        own = rows[self.trainer.global_rank]
        count = 2 + len(progress.totals)
        progress.facts = progress.facts.of(norm=own[0], totals=own[2:count], all_totals=[row[2:count] for row in rows])
        refuse_nonfinite(
            progress.facts, run_dir=setup.run_dir, rank=self.trainer.global_rank, scaler=self._scaler,
            newest=setup.newest, parameters=self._bad_parameters,
        )  # fmt: skip
        if setup.optimizer.clip > 0:
            torch.nn.utils.clip_grads_with_norm_(parameters, setup.optimizer.clip, norm)
        end = len(own) - polled
        self._answers = {name: any(row[end + i] > 0 for row in rows) for i, name in enumerate(sorted(self.polls))}
        flat = [sum(column) for column in zip(*(row[count:end] for row in rows), strict=True)]
        metrics = means(names, flat)
        tokens = int(sum(row[1] for row in rows))
        self.tokens_seen += tokens
        metrics |= {"grad_norm": own[0], "lr": progress.facts.lr, "tokens": float(self.tokens_seen)}
        if setup.steps_per_epoch:
            metrics["epoch"] = progress.step / setup.steps_per_epoch
        progress.report |= {
            "step": progress.step,
            "metrics": metrics,
            "loss": torch.tensor(metrics["loss"], dtype=torch.float64),
            "tokens": tokens,
            "units": flat[2 * names.index("loss") + 1],
            "sample_ids": tuple(name for ids in progress.facts.sample_ids for name in ids),
        }
        self.updating = True

    def _log(self, report: Mapping[str, Any]) -> None:
        if not self._logs(report["step"]):
            return
        for metric, state in self._own_metrics():
            report["metrics"][metric.name] = float(state.compute())
            state.reset()
        for logger in self.trainer.loggers:
            logger.log_metrics(dict(report["metrics"]), step=report["step"])

    def _logs(self, step: int) -> bool:
        return step % self.training_setup.log_every == 0 or step in (1, self.training_setup.max_steps)

    def _own_metrics(self) -> list[tuple[NamedMetric, Any]]:
        """The plugins' training metrics; each covers one step, so nothing of them has to be kept."""
        if not hasattr(self, "_metric_states"):
            states = [(metric, metric.factory().to(self.device)) for metric in self.training_setup.metrics]
            object.__setattr__(self, "_metric_states", states)  # not part of the model's state
        states = self._metric_states
        return states

    def _norm(self, optimizer: torch.optim.Optimizer, grads: Sequence[Tensor]) -> Tensor:
        """L2 norm of all gradients; parts that each process owns alone are summed over processes."""
        ignored = set(getattr(self, "_ddp_params_and_buffers_to_ignore", ()))
        if self.trainer.world_size == 1 or not ignored:
            return torch.nn.utils.get_total_norm(list(grads))
        named = dict(self.named_parameters())
        own = [named[name].grad for name in sorted(ignored) if name in named and named[name].grad is not None]
        mine = {id(grad) for grad in own}
        shared = torch.nn.utils.get_total_norm([grad for grad in grads if id(grad) not in mine]).double()
        local = torch.nn.utils.get_total_norm(own).double().square() if own else torch.zeros_like(shared)
        torch.distributed.all_reduce(local)
        return (shared.square() + local).sqrt().float()

    # --- what ranks agree on ------------------------------------------------------------------------------------

    def agreed(self, name: str) -> bool:
        """The answer of the poll ``name`` that all ranks share; with one process, as of now."""
        if self.trainer.world_size == 1:
            poll = self.polls.get(name)
            return poll is not None and poll()
        return self._answers.get(name, False)

    def _global_units(self, micro_batches: Sequence[Batch]) -> Tensor | float:
        """The loss's units of the whole step over all processes, known before the first backward pass."""
        units = sum(units_of(self.training_setup.loss, batch) for batch in micro_batches)
        if self.trainer.world_size > 1:
            total = torch.tensor(float(units), dtype=torch.float32, device=self.device)
            torch.distributed.all_reduce(total)
            return total
        if not units:
            names = ", ".join(name for batch in micro_batches for name in batch.sample_ids[:8])
            raise DataError(
                "NOTHING-TO-TRAIN", f"a step without any trained {self.training_setup.loss.unit} ({names})", mend="check the data's masks"
            )
        return float(units)

    def _agreed_names(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Metric names in one order on every rank; they're fixed by the first step where there are several processes."""
        if self.trainer.world_size == 1:
            return names
        if self._names is None:
            everyone: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(everyone, names)
            self._names = tuple(sorted(set().union(*everyone)))
        if not set(names) <= set(self._names):
            new = ", ".join(sorted(set(names) - set(self._names)))
            raise PluginError(
                "METRIC-NAMES", f"loss {self.training_setup.loss.name!r} gave new metrics ({new}) after the first step",
                mend="return the same names for every batch, with count 0 where there's nothing to say",
            )  # fmt: skip
        return self._names

    def _gathered(self, values: Sequence[Tensor]) -> list[list[float]]:
        """One row of numbers per rank, the polls' answers at its end; the step's one wait for the device."""
        answers = [float(self.polls[name]()) for name in sorted(self.polls)]
        row = torch.stack([value.to(torch.float64) for value in values])
        row = torch.cat([row, torch.tensor(answers, dtype=torch.float64, device=row.device)])
        if self.trainer.world_size == 1:
            return [row.tolist()]
        rows = torch.empty(self.trainer.world_size, row.numel(), dtype=row.dtype, device=row.device)
        torch.distributed.all_gather_into_tensor(rows, row)
        gathered: list[list[float]] = rows.tolist()
        return gathered

    @contextmanager
    def _without_sync(self) -> Iterator[None]:
        """Keep DDP from reducing gradients that more micro-batches will add to."""
        strategy: Any = self.trainer.strategy
        if self.trainer.world_size == 1 or not hasattr(strategy, "block_backward_sync"):
            yield
            return
        with strategy.block_backward_sync():
            yield

    @property
    def _scaler(self) -> Any:
        return getattr(self.trainer.precision_plugin, "scaler", None)

    def _bad_parameters(self) -> list[str]:
        return [n for n, p in self.named_parameters() if p.grad is not None and not bool(torch.isfinite(p.grad).all())]

    # --- checkpoints --------------------------------------------------------------------------------------------

    def kept_names(self) -> list[str]:
        """Names of what a checkpoint holds: trained parameters (tied ones once) and persistent buffers."""
        trained = [name for name, parameter in self.named_parameters() if parameter.requires_grad]
        persistent = set(self.state_dict())
        return trained + [name for name, _ in self.named_buffers() if name in persistent]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what is trained; the frozen base is on disk already."""
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: state[name] for name in self.kept_names()}
        checkpoint["llmfw"] = {"tokens_seen": self.tokens_seen}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint whose weights aren't exactly those that are trained here.

        Raises:
            CheckpointError: CHECKPOINT-WEIGHTS, naming the first difference.
        """
        state, own = checkpoint["state_dict"], self.state_dict()
        wanted = self.kept_names()
        difference = [f"lacks {name}" for name in wanted if name not in state]
        difference += [f"holds {name}, which isn't trained here" for name in state if name not in set(wanted)]
        difference += [
            f"holds {name} of shape {tuple(state[name].shape)}, not {tuple(own[name].shape)}"
            for name in wanted
            if name in state and state[name].shape != own[name].shape
        ]
        if difference:
            raise CheckpointError(
                "CHECKPOINT-WEIGHTS", f"the checkpoint {difference[0]} ({len(difference)} differences)",
                mend="resume with the settings and plugins that the run was started with",
            )  # fmt: skip
        self.tokens_seen = int(checkpoint.get("llmfw", {}).get("tokens_seen", 0))
        self._resumed = True
        # the loader has no end; a checkpoint of the last step must not make a longer run stop at once
        batches = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        batches["is_last_batch"] = False


def _real_tokens(batch: Batch) -> Tensor:
    """Number of tokens that aren't padding, as a tensor, so that nothing waits for the device."""
    mask = batch.attention_mask
    return (mask if mask.dim() == 2 else mask[:, 0].any(-1)).sum()


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Lightning's ``bf16-true`` makes bfloat16 the default of every new tensor; only weights should be in it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
