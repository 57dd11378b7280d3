"""Where a training's reference log-probs come from: the reference model, or a cache that is filled first."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from llmfw.core.manager import DEFAULTS
from llmfw.core.models import ReferenceCache, reference_key, reference_of
from llmfw.core.models.reference_cache import Filled, State
from llmfw.core.models.reference_cache.policy import CachedPolicy
from llmfw.core.say import say
from llmfw.core.training.dtypes import default_dtype
from llmfw.core.training.ranks import gather_objects

if TYPE_CHECKING:
    from llmfw.core.assemble import Assembled
    from llmfw.core.batch import Batch
    from llmfw.core.data import Example, Prepared
    from llmfw.core.models import FrozenPolicy
    from llmfw.core.records import Policy
    from llmfw.core.training.train import Job

EVENT = "reference"
"""A journal's events with what a cache's filling took."""
_FIRST, _EVERY = 5.0, 30.0
"""Seconds before the first line about progress, and between lines."""
_ROOM = 1.3
"""A frozen pass's memory as a multiple of its weights', to decide whether a device takes it."""


@dataclass
class References:
    """Where batches get the reference's log-probs from, once a cache holds them."""

    collate: Callable[[Sequence[Example]], Batch] | None = None
    """Builds batches with ``reference_logps``; None: the loss asks the reference model itself."""
    trainer: Trainer | None = None
    """Whose device and precision the reference's passes have; None: those of the model as it is."""


def reference_policy(
    job: Job, built: Any, collate: Callable[[Sequence[Example]], Batch], ids: Callable[[], Collection[str]]
) -> Policy:
    """The reference's façade; with ``trainer.reference=cache`` its log-probs go to disk first, and no model
    is kept for it.

    Args:
        collate: how the run lays its batches.
        ids: names the training samples that the run will see.
    """
    root = job.assembled.run.config
    how = root.trainer.reference
    if how == "cache" and job.bare is not None:
        say("note: batches of a bare LightningDataModule can't be cached: the reference model is kept")
        how = "auto"
    reference = reference_of(built, how)
    if how != "cache":
        return reference
    examples = needed(job.prepared, ids(), root.trainer.validation_limit)
    cache = cache_of(job.assembled, built)
    missing, filled = cache.missing(examples), Filled()
    if missing:
        say(
            f"reference log-probs: computing {len(missing)} of {len(examples)} samples, once ({cache.folder})"
        )
        with _placed(reference, built, job.references.trainer) as logps:
            padded = not _unpadded(collate)
            filled = cache.fill(missing, collate, logps, padded=padded, progress=_Told())
    # a process that comes late may find that others have computed everything
    shares = gather_objects((len(missing), filled))
    if most := max(count for count, _ in shares):
        _note(job, _together([share for _, share in shares]), cache, samples=len(examples), missing=most)
    job.references.collate = cache.attach(collate)
    return CachedPolicy(reference.tokenizer)


def needed(prepared: Prepared, ids: Collection[str], limit: int | None) -> list[Example]:
    """The examples whose log-probs a run asks for: those of the training samples ``ids``, and the first
    ``limit`` held-out ones.
    """
    wanted = set(ids)
    found = [example for example in prepared.train if not wanted.isdisjoint(example.sample_ids)]
    return [*found, *prepared.validation[:limit]]


def cache_of(assembled: Assembled, built: Any, *, make: bool = True) -> ReferenceCache:
    """The cache of the run's reference; ``make`` False: to look at, without a trace on the disk."""
    precision, settings = assembled.run.config.trainer.precision, assembled.resolved.plugin_settings
    key = reference_key(built, precision=precision, settings=settings)
    return ReferenceCache(key, about={"model": built.model.name}, make=make)


@contextmanager
def _placed(
    reference: FrozenPolicy, built: Any, trainer: Trainer | None
) -> Iterator[Callable[[Batch], Tensor]]:
    """The reference's log-probs, computed where and in the arithmetic in which training will ask the policy.

    The model stays on that device, to which it would go next; one that is to be cut up goes back.
    """
    if trainer is None:
        yield reference.logps
        return
    precision, parts = trainer.precision_plugin, [built.module, *built.companions.values()]
    mesh = getattr(trainer.strategy, "mesh", None)
    device = _device(parts, trainer.strategy.root_device)
    for part in parts:
        precision.convert_module(part)  # as Lightning does before training
        part.to(device)

    def logps(batch: Batch) -> Tensor:
        with precision.forward_context(), default_dtype(torch.float32):
            return reference.logps(batch.to(device))

    yield logps
    for part in parts:
        _thaw(part)
        if mesh is not None:
            part.to("cpu")


def _device(parts: Sequence[nn.Module], wanted: torch.device) -> torch.device:
    """The device if it has room for the whole model, else the CPU."""
    if wanted.type != "cuda":
        return wanted
    size = sum(value.nbytes for part in parts for value in (*part.parameters(), *part.buffers()))
    free, _ = torch.cuda.mem_get_info(wanted)
    if size * _ROOM < free:
        return wanted
    say(
        f"note: the whole model ({size / 2**30:.1f} GiB) has no room on {wanted} "
        f"({free / 2**30:.1f} GiB free): reference log-probs are computed on the CPU, which is slow"
    )
    return torch.device("cpu")


def _thaw(module: nn.Module) -> None:
    """Buffers that a pass in inference mode made anew become ordinary tensors: DDP writes into them."""
    for part in module.modules():
        for name, value in part.named_buffers(recurse=False):
            if value.is_inference():
                part._buffers[name] = value.clone()


def _unpadded(collate: Any) -> bool:
    """Whether the run's batches have no padding, so that only tokens cost time."""
    return bool(getattr(collate, "layout", "padded") != "padded")


def _together(shares: Sequence[Filled]) -> Filled:
    """What all processes computed; seconds are those of the one that took longest."""
    return Filled(
        samples=sum(share.samples for share in shares),
        tokens=sum(share.tokens for share in shares),
        seconds=max(share.seconds for share in shares),
    )


def _note(job: Job, filled: Filled, cache: ReferenceCache, *, samples: int, missing: int) -> None:
    """Say and write down what it took all processes."""
    if filled.samples:
        speed = filled.tokens / max(filled.seconds, 1e-9)
        say(
            f"reference log-probs: {filled.samples} samples, {filled.tokens:,} tokens in "
            f"{filled.seconds:.1f} s ({speed:,.0f} tokens/s)"
        )
    assembled, journal = job.assembled, job.session.journal
    owner = assembled.plan.owner("llmfw_loss")
    if owner not in (None, DEFAULTS):
        assembled.run._spent.add(str(owner), "reference", filled.seconds)
    if journal is not None:
        journal.event(
            EVENT,
            cache=cache.folder.name,
            needed=samples,
            missing=missing,
            samples=filled.samples,
            tokens=filled.tokens,
            seconds=filled.seconds,
        )


class _Told:
    """Lines about a long filling: how far it is, how fast, how long it will take."""

    def __init__(self) -> None:
        self._next = _FIRST

    def __call__(self, state: State) -> None:
        if state.seconds < self._next or not state.left:
            return
        self._next = state.seconds + _EVERY
        say(
            f"reference log-probs: {state.left} samples left, {state.speed:,.0f} tokens/s, "
            f"about {_time(state.seconds_left)} to go"
        )


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
