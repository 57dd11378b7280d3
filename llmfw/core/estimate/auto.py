"""``trainer.micro_batch=auto`` and ``trainer.batch``: numbers in their place before a run's plan is final."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmfw.core.errors import LlmfwError, ResourceError, UsageError
from llmfw.core.plan import MEASURED
from llmfw.core.say import is_main_process, say
from llmfw.core.schema import TrainerConfig
from llmfw.core.settings.layers import Origin
from llmfw.core.tracking import list_runs
from llmfw.core.tracking.files import read_json

if TYPE_CHECKING:
    from llmfw.core.assemble import Assembled, Settled
    from llmfw.core.estimate.estimate import Estimator
    from llmfw.core.estimate.memory import Peak

AUTO = "auto"
KEY, BATCH = "trainer.micro_batch", "trainer.batch"
_FOUND = "LLMFW_MICRO_BATCH"
"""Tells the numbers to the processes that this one starts."""
_TRACES = 8
"""Predictions that are made at most."""
_SURE = 1.02
"""A candidate whose peak by the straight line lies above the limit by this factor isn't tried."""


@dataclass(frozen=True, kw_only=True)
class Division:
    """How an optimizer step's samples are dealt out, and what is said about it."""

    micro_batch: int
    accumulate: int
    note: str = ""


def wants_auto(trainer: TrainerConfig) -> bool:
    """Whether ``trainer.micro_batch`` is still to be found."""
    return str(trainer.micro_batch) == AUTO


def decide(settled: Settled, verb: str, resume: str, make: Callable[[Settled], Assembled]) -> Settled:
    """The settings with numbers for ``trainer.micro_batch`` and ``trainer.accumulate``.

    A run that is resumed keeps those that it began with; processes that were started by another take its.

    Args:
        make: assembles settled settings, to look at a run that they'd make.

    Raises:
        UsageError: BATCH-SPLIT; MICRO-BATCH-LAUNCHER under torchrun or srun; ESTIMATE.
        ResourceError: MICRO-BATCH, where not even one sample fits.
    """
    trainer = settled.resolved.root.trainer
    world = trainer.devices * trainer.nodes
    _check_accumulate(settled, world)
    if not wants_auto(trainer):
        assert trainer.batch is not None
        return with_division(settled, split(trainer.batch, trainer.micro_batch, world))
    if verb not in ("fit", "plan"):
        plain = TrainerConfig().micro_batch
        note = f"{MEASURED}{plain}, the default, as {verb} trains nothing"
        return with_division(
            settled, Division(micro_batch=plain, accumulate=trainer.accumulate, note=note), forget=True
        )
    told = _told()
    if told is not None:
        return with_division(settled, told)
    begun = begun_with(settled, make) if resume != "never" else None
    found = begun or find(settled, make)
    if world > 1:
        os.environ[_FOUND] = f"{found.micro_batch},{found.accumulate}"
    return with_division(settled, found)


def _told() -> Division | None:
    """What the process that started this one found; None in the main process.

    Raises:
        UsageError: MICRO-BATCH-LAUNCHER.
    """
    from llmfw.core.training.launch import launched

    found = launched()
    if found is not None:
        raise UsageError(
            "MICRO-BATCH-LAUNCHER",
            f"{found.name} started all processes at once, and each would find a number of its own",
            mend="take the number that `llmfw plan --estimate` names, or let llmfw start the processes",
            key=KEY,
        )
    text = os.environ.get(_FOUND)
    if is_main_process() or text is None:
        return None
    micro, accumulate = (int(part) for part in text.split(","))
    return Division(micro_batch=micro, accumulate=accumulate)


def _check_accumulate(settled: Settled, world: int) -> None:
    """Refuse ``trainer.accumulate`` beside ``trainer.batch``, which decides it.

    Raises:
        UsageError: BATCH-SPLIT.
    """
    trainer, origin = settled.resolved.root.trainer, settled.resolved.origin.get("trainer.accumulate")
    if trainer.batch is None or origin is None or origin.layer in ("defaults", "base", "derived"):
        return
    if not wants_auto(trainer) and trainer.micro_batch * trainer.accumulate * world == trainer.batch:
        return
    raise UsageError(
        "BATCH-SPLIT",
        f"trainer.accumulate={trainer.accumulate} stands beside trainer.batch={trainer.batch}, which decides "
        "it",
        mend="leave one of them out",
        key=BATCH,
    )


def split(batch: int, micro_batch: int, world: int) -> Division:
    """``batch`` samples over ``world`` processes in micro-batches of that size.

    Raises:
        UsageError: BATCH-SPLIT, naming the sizes that would do.
    """
    accumulate, rest = divmod(batch, micro_batch * world)
    if rest or not accumulate:
        able = divisors(batch // world) if batch % world == 0 else []
        mend = (
            f"set trainer.micro_batch to one of {', '.join(map(str, able))}, or to auto"
            if able
            else f"set trainer.batch to a multiple of {world}"
        )
        processes = f" in {world} processes" if world > 1 else ""
        raise UsageError(
            "BATCH-SPLIT",
            f"{batch} samples can't be dealt out in micro-batches of {micro_batch}{processes}",
            mend=mend,
            key=BATCH,
        )
    return Division(micro_batch=micro_batch, accumulate=accumulate)


def divisors(number: int) -> list[int]:
    """All of them, in order."""
    return [part for part in range(1, number + 1) if number % part == 0]


def find(settled: Settled, make: Callable[[Settled], Assembled]) -> Division:
    """The largest micro-batch whose predicted peak, its uncertainty added, stays below what is available."""
    from llmfw.core.estimate.estimate import Estimator

    trainer = settled.resolved.root.trainer
    first = Division(micro_batch=1, accumulate=trainer.accumulate if trainer.batch is None else 1)
    estimator = Estimator(make(with_division(settled, first, forget=True)))
    candidates, accumulate = choices(trainer, len(estimator.source.examples))
    limit = estimator.room()
    peaks: dict[int, Peak] = {}

    def peak(micro_batch: int) -> int:
        if micro_batch not in peaks:
            peaks[micro_batch] = estimator.peak(micro_batch, accumulate(micro_batch))
        return peaks[micro_batch].high

    found = largest(candidates, peak, limit.bytes)
    if found is None:
        root = estimator.root
        able = [
            word
            for word, off in (
                ("data.max_length", True),
                ("trainer.recompute=layers", root.trainer.recompute != "layers"),
                ("adapter.kind=lora", root.adapter.kind == "none"),
            )
            if off
        ]
        raise ResourceError(
            "MICRO-BATCH",
            f"not even one sample fits: {_gib(peaks[candidates[0]].high)} may be needed, "
            f"{_gib(limit.bytes)} are {limit.how}",
            mend=f"lower or set {', '.join(able)}",
            key=KEY,
        )
    tried = _verified(estimator, [one for one in candidates if one <= found], accumulate)
    peak(tried)  # a smaller one that a trial came to may not have been predicted yet
    note = f"{MEASURED}{tried} (predicted {_gib(peaks[tried].total)} of {_gib(limit.bytes)} {limit.how})"
    return Division(micro_batch=tried, accumulate=accumulate(tried), note=note)


def choices(trainer: TrainerConfig, samples: int) -> tuple[list[int], Callable[[int], int]]:
    """(micro-batches that may be chosen in order, the accumulation that belongs to each).

    Raises:
        UsageError: BATCH-SPLIT, where ``trainer.batch`` can't be dealt out over the processes.
    """
    world = trainer.devices * trainer.nodes
    if trainer.batch is None:
        most = max(1, samples // (trainer.accumulate * world))
        return list(range(1, most + 1)), lambda micro_batch: trainer.accumulate
    batch = trainer.batch
    split(batch, 1, world)
    return divisors(batch // world), lambda micro_batch: batch // (world * micro_batch)


def largest(candidates: Sequence[int], peak: Callable[[int], int], limit: int) -> int | None:
    """The largest of the candidates (in order) whose peak is at most ``limit``; None: not even the first.

    Peaks grow almost in a straight line, so a few are enough: each guess is where the line through the two
    last known ones meets the limit.
    """
    known: dict[int, int] = {}

    def fits(index: int) -> bool:
        known[index] = peak(candidates[index])
        return known[index] <= limit

    if not fits(0):
        return None
    low, high = 0, len(candidates)
    while high - low > 1 and len(known) < _TRACES:
        guess = low + 1
        line = _line([(candidates[index], size) for index, size in known.items()])
        if line is not None:
            meets = line(limit)
            guess = bisect_right(candidates, meets) - 1
            if guess <= low and candidates[low + 1] > meets * _SURE:
                break
            guess = min(max(guess, low + 1), high - 1)
        if fits(guess):
            low = guess
        else:
            high = guess
    return candidates[low]


def _line(points: Sequence[tuple[int, int]]) -> Callable[[int], float] | None:
    """(peak) -> the micro-batch at which the line through the two largest points has it."""
    if len(points) < 2:
        return None
    (near, low), (far, high) = sorted(points)[-2:]
    slope = (high - low) / (far - near)
    return None if slope <= 0 else lambda size: far + (size - high) / slope


def _verified(estimator: Estimator, candidates: Sequence[int], accumulate: Callable[[int], int]) -> int:
    """The largest candidate with which a GPU takes one step; elsewhere the largest as it is."""
    if estimator.device != "cuda":
        return candidates[-1]
    from llmfw.core.estimate.trial import trial_step

    return by_trial(
        candidates, lambda micro_batch: trial_step(estimator, micro_batch, accumulate(micro_batch))
    )


def by_trial(candidates: Sequence[int], trial: Callable[[int], None]) -> int:
    """The largest candidate whose trial doesn't run out of memory, tried from the largest down.

    Raises:
        ResourceError: MICRO-BATCH, where all do.
    """
    import torch

    for micro_batch in reversed(candidates):
        try:
            trial(micro_batch)
        except torch.OutOfMemoryError:
            say(f"note: a trial step with a micro-batch of {micro_batch} ran out of memory; trying less")
            continue
        return micro_batch
    raise ResourceError(
        "MICRO-BATCH",
        "a trial step runs out of memory with the smallest micro-batch",
        mend="lower data.max_length, or set trainer.recompute=layers or adapter.kind=lora",
        key=KEY,
    )


def begun_with(
    settled: Settled, make: Callable[[Settled], Assembled], runs: Path | None = None
) -> Division | None:
    """The numbers of the unfinished run that these settings would go on with; None: there's none."""
    wanted = settled.resolved.root.run.dir
    records = [one for one in list_runs(*([runs] if runs else [])) if one.status != "FINISHED"]
    folders = [Path(wanted)] if wanted else [one.dir for one in records]
    tried: dict[tuple[int, int], str] = {}
    for folder in folders:
        plan: Mapping[str, Any] = read_json(folder / "plan.json") or {}
        told = plan.get("settings", {})
        numbers = (told.get(KEY), told.get("trainer.accumulate"))
        if not all(isinstance(number, int) for number in numbers):
            continue
        micro, accumulate = int(numbers[0]), int(numbers[1])
        note = f"{MEASURED}{micro}, with which {folder} began"
        division = Division(micro_batch=micro, accumulate=accumulate, note=note)
        if numbers not in tried:
            try:
                tried[micro, accumulate] = make(with_division(settled, division)).plan.fingerprint
            except LlmfwError:
                continue
        if tried[micro, accumulate] == plan.get("fingerprint"):
            return division
    return None


def with_division(settled: Settled, division: Division, *, forget: bool = False) -> Settled:
    """The settings with these numbers; with ``forget`` without ``trainer.batch``, for a look at a part."""
    resolved = settled.resolved
    new: dict[str, Any] = {"micro_batch": division.micro_batch, "accumulate": division.accumulate}
    if forget:
        new["batch"] = None
    root = replace(resolved.root, trainer=replace(resolved.root.trainer, **new))
    values = {**resolved.values, "trainer": {**resolved.values["trainer"], **new}}
    origin = dict(resolved.origin)
    for name, value in new.items():
        key = f"trainer.{name}"
        before = origin.get(key)
        if before is not None and before.value != value:
            origin[key] = Origin(layer="derived", value=value, shadows=(before,))
    notes = (*settled.notes, *([division.note] if division.note else []))
    return replace(settled, resolved=replace(resolved, root=root, values=values, origin=origin), notes=notes)


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
