"""``llmfw check loss``: the gradient of a run's first step doesn't hang on how the step is dealt out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from llmfw.core.assemble import Assembled
from llmfw.core.batch import Batch, Layout
from llmfw.core.data import StepLoader, collate
from llmfw.core.determinism import seed_all
from llmfw.core.errors import ConflictError, NumericsError
from llmfw.core.module import TrainModule
from llmfw.core.records import Loss, Policy
from llmfw.core.training.dtypes import default_dtype
from llmfw.core.training.layout import layouts_of
from llmfw.core.training.train import Job, total_steps, training_of
from llmfw.core.training.validation import auxiliary_of, units_of
from llmfw.core.unkept import calibrate, places_of_unkept, unkept

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}
"""Largest difference of a gradient's value, as a share of the largest of its tensor, that is rounding. In
float64 it's that much because transformers' norms compute in float32 whatever they are given.
"""


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to deal out the samples of a step, compared with the run's own."""

    what: str
    loss: float
    apart: float
    """Of the loss, relative to it."""
    gradient: float
    """Largest difference of a gradient's value, relative to the largest value of its tensor."""
    where: str
    """The parameter whose gradient differs most."""
    held: bool


@dataclass(frozen=True, kw_only=True)
class LossCheck:
    """What was found; ``margin`` is how fast a step down the gradient raises the margin of chosen over
    rejected answers (None: the loss isn't of pairs).
    """

    name: str
    unit: str
    dtype: str
    samples: tuple[str, ...]
    tolerance: float
    ways: tuple[Way, ...]
    margin: float | None

    def insist(self) -> None:
        """Return where every way gives the same, and the margin rises.

        Raises:
            NumericsError: LOSS-DEALT, LOSS-MARGIN.
        """
        for way in self.ways:
            if not way.held:
                raise NumericsError(
                    "LOSS-DEALT",
                    f"{way.what}: the loss is {way.apart:.1e} and the gradient of {way.where} "
                    f"{way.gradient:.1e} from the run's own ({self.tolerance:.0e} is rounding)",
                    mend="let the loss return a sum over its units, and no mean of a micro-batch",
                )
        if self.margin is not None and not self.margin > 0:
            raise NumericsError(
                "LOSS-MARGIN",
                f"a step down the gradient moves the margin of chosen over rejected by {self.margin:.1e}",
                mend="look for a wrong sign, or for chosen and rejected in each other's place",
            )


def check_loss(assembled: Assembled) -> LossCheck:
    """Compute the gradient of the run's first step in several ways and compare; nothing is trained.

    The ways: as the run deals it out, sample by sample, all samples at once, as two processes would have it
    (their shares summed up), and with padded rows. The model is in evaluation mode and in float64 (quantised
    ones as they are), so what is more than rounding is an error.

    Raises:
        UsageError, ConflictError: ONLY-IN-ROUNDS, CHECK-BATCHES, where there's no such step.
        LlmfwError: whatever stops a run before its first step.
    """
    with unkept(assembled) as job:
        module = TrainModule(training_of(job, total_steps(job), places_of_unkept(job)))
        module.configure_model()
        calibrate(job, module)
        dtype = _widened(module)
        first, *others = _ways(job)
        names = tuple(name for batch in first[1] for name in batch.sample_ids)
        with default_dtype(dtype):
            loss, gradient = _gradient(module, first[1])
            margin = _margin(module, first[1], gradient)
            found = [_compared(module, what, batches, loss, gradient, dtype) for what, batches in others]
    record: Loss = assembled.plan.one("llmfw_loss")
    return LossCheck(
        name=record.name, unit=record.unit, dtype=str(dtype).removeprefix("torch."), samples=names,
        tolerance=TOLERANCE[dtype], ways=tuple(found), margin=margin,
    )  # fmt: skip


def _widened(module: TrainModule) -> torch.dtype:
    """The model in evaluation mode, and in float64 where it can be; the dtype in which it's compared."""
    parts = [module.policy.module, *module.companions.values()]
    frozen = getattr(module.reference, "module", None)
    parts += [frozen] if isinstance(frozen, torch.nn.Module) else []
    for part in parts:
        part.eval()
    if any(not value.is_floating_point() for part in parts for value in part.parameters()):
        return torch.float32  # held in whole numbers
    for part in parts:
        part.double()
    return torch.float64


def _ways(job: Job) -> Iterator[tuple[str, list[Batch]]]:
    """(what, micro-batches of the first step): the run's own first."""
    root, prepared = job.assembled.run.config, job.prepared
    if job.bare is not None or prepared.stream is not None:
        raise ConflictError(
            "CHECK-BATCHES",
            "the samples of a stream, or of a plugin's own LightningDataModule, can't be dealt out anew",
            mend="check the loss on a file of its rows (data=FILE)",
            key="data.name",
        )
    trainer, pad = root.trainer, job.assembled.tokenizer.pad_token_id
    together = trainer.micro_batch * trainer.accumulate * trainer.devices * trainer.nodes

    def batches(micro_batch: int, world: int = 1, layout: Layout | None = None) -> list[Batch]:
        build = job.references.collate or job.layer
        if layout is not None and job.references.collate is None:
            build = partial(collate, pad_id=pad, layout=layout)
        alike: dict[str, Any] = {
            "micro_batch": micro_batch,
            "accumulate": together // micro_batch // world,
            "seed": root.seed,
            "max_steps": 1,
            "world": world,
            "order": prepared.order,
            "mix": prepared.mix,
            "group_by_length": root.data.group_by_length,
            "pad_id": pad,
        }
        shares = [next(iter(StepLoader(prepared.train, build, rank=rank, **alike))) for rank in range(world)]
        return [batch for share in shares for batch in share]

    yield f"micro-batches of {trainer.micro_batch}, as the run has them", batches(trainer.micro_batch)
    if trainer.micro_batch > 1:
        yield "sample by sample", batches(1)
    if together > trainer.micro_batch:
        yield "all samples at once", batches(together)
    if together % 2 == 0:
        yield "two processes' shares, summed up", batches(1, world=2)
    if job.layer.layout != "padded" and "padded" in _allowed(job):
        yield "padded rows", batches(trainer.micro_batch, layout="padded")


def _allowed(job: Job) -> Sequence[str]:
    found = layouts_of(job.assembled.plan, job.assembled.run.config, job.assembled.model_config)
    return found.allowed


def _gradient(module: TrainModule, batches: Sequence[Batch]) -> tuple[float, dict[str, Tensor]]:
    """(loss over all units, gradients), as the training step has them."""
    loss = module.job.loss
    units = float(sum(units_of(loss, batch) for batch in batches))
    module.zero_grad(set_to_none=True)
    total = 0.0
    for batch in batches:
        seed_all(module.job.seed, "check", 0)
        output = loss.call(module.policy, batch, module.reference)
        objective = output.total / units
        auxiliary = auxiliary_of(module.policy)
        if auxiliary is not None:
            objective = objective + auxiliary / len(batches)
        objective.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        total += float(output.total.detach()) / units
    found = {name: value.grad for name, value in module.named_parameters() if value.grad is not None}
    module.zero_grad(set_to_none=True)
    return total, found


def _compared(
    module: TrainModule,
    what: str,
    batches: Sequence[Batch],
    loss: float,
    gradient: Mapping[str, Tensor],
    dtype: torch.dtype,
) -> Way:
    other, found = _gradient(module, batches)
    worst, where = 0.0, ""
    for name in dict.fromkeys((*gradient, *found)):
        one, two = gradient.get(name), found.get(name)
        far = math.inf if one is None or two is None else _far(one, two)
        if far > worst or not where:
            worst, where = far, name
    apart = abs(other - loss) / max(abs(loss), 1e-12)
    held = worst <= TOLERANCE[dtype] and apart <= TOLERANCE[dtype]
    return Way(what=what, loss=other, apart=apart, gradient=worst, where=where, held=held)


def _far(one: Tensor, other: Tensor) -> float:
    """inf where one isn't finite."""
    largest = one.abs().max()
    far = (one - other).abs().max() / largest.clamp(min=1e-30) if bool(largest > 0) else other.abs().max()
    return float(far.nan_to_num(nan=math.inf))


def _margin(module: TrainModule, batches: Sequence[Batch], gradient: Mapping[str, Tensor]) -> float | None:
    """How the mean margin of chosen over rejected log-probs moves along a unit step down the gradient."""
    if module.job.loss.batch_kind != "preference":
        return None
    policy: Policy = module.policy
    pairs = sum(batch.segments // 2 for batch in batches)
    for batch in batches:
        per_segment = torch.zeros(batch.segments, dtype=torch.float64).index_add(
            0, batch.segment, policy.logps(batch).double()
        )
        chosen, rejected = per_segment.chunk(2)
        ((chosen - rejected).sum() / pairs).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    slopes: dict[str, Any] = {name: value.grad for name, value in module.named_parameters()}
    module.zero_grad(set_to_none=True)
    along = sum(
        float((slopes[name] * value).sum()) for name, value in gradient.items() if slopes[name] is not None
    )
    norm = math.sqrt(sum(float(value.square().sum()) for value in gradient.values()))
    return -along / norm if norm else 0.0
