"""The cost of a run as a value, and as its folder keeps it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

FILE = "costs.json"
PREFIXES = ("plugin/", "cost/")
"""Series of a journal that tell costs: they differ between two equal runs, and are no training metrics."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one part of a plugin costs in a run.

    Measured on ``samples`` optimizer steps (``ms``, ``share``), or over the whole run (``seconds``).
    """

    plugin: str
    name: str
    """``loss``, ``reference``, ``surgery/NAME``, ``callback/CLASS``, ``metric/NAME``; of whole runs also
    ``evaluation/NAME``, ``transform/NAME``, ``service/PROTOCOL``, ``sampler/NAME``.
    """
    ms: float | None = None
    """Milliseconds of an optimizer step, the mean of the measured ones; None: it does nothing in a step."""
    share: float | None = None
    """``ms`` as a share of the measured steps' own time."""
    seconds: float | None = None
    """Of the whole run, for what isn't done step by step."""
    gib: float | None = None
    """Memory that it holds; None: not known."""
    samples: int = 0
    note: str = ""
    """What the figure holds beside the part's own work."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a run cost: a resumed one all its processes together, one of rounds all its rounds."""

    tokens: int = 0
    """Tokens trained on, without padding, on all devices."""
    train_seconds: float = 0.0
    """Of the optimizer steps that count, without loading, validation and checkpoints."""
    seconds: float = 0.0
    """From the making of the run's folder to its end, without the pauses between its processes."""
    host_gib: float | None = None
    """Peak of the process's resident memory, libraries included."""
    gpu_gib: float | None = None
    """Peak of the tensors' memory on the GPU; None: none was used."""
    memory: str = ""
    """How the peaks were measured."""
    parts: tuple[Part, ...] = ()
    """What each plugin's parts cost, plugin by plugin."""

    @property
    def tokens_per_second(self) -> float | None:
        """Of the optimizer steps alone; None: nothing was trained."""
        return self.tokens / self.train_seconds if self.train_seconds > 0 else None

    def to_json(self) -> dict[str, Any]:
        """As ``costs.json`` has it."""
        return {**asdict(self), "parts": [asdict(part) for part in self.parts]}


def read_cost(folder: Path) -> Cost:
    """The cost of the run in a folder; of one that hasn't ended, or is older than costs, an empty one."""
    try:
        told = json.loads((folder / FILE).read_text(encoding="utf-8"))
        parts = tuple(Part(**_known(Part, part)) for part in told.pop("parts", ()))
        return Cost(**_known(Cost, told), parts=parts)
    except (OSError, ValueError, TypeError, AttributeError):
        return Cost()


def parts_of(
    samples: Sequence[Mapping[str, Any]], spent: Iterable[Mapping[str, Any]] = ()
) -> tuple[Part, ...]:
    """The parts, plugin by plugin, in the order in which they were first met.

    Args:
        samples: measured steps, as a ``Meter`` tells them.
        spent: ``plugin``, ``name`` and ``seconds`` of what isn't done step by step.
    """
    steps: dict[tuple[str, str], list[tuple[float, Mapping[str, Any]]]] = {}
    for sample in samples:
        for told in sample["parts"]:
            steps.setdefault((told["plugin"], told["name"]), []).append((float(sample["ms"]), told))
    whole: dict[tuple[str, str], float] = {}
    for told in spent:
        key = (told["plugin"], told["name"])
        whole[key] = whole.get(key, 0.0) + float(told["seconds"])
    keys = dict.fromkeys([*steps, *whole])
    order = list(dict.fromkeys(plugin for plugin, _ in keys))
    return tuple(
        _part(key, steps.get(key, ()), whole.get(key))
        for key in sorted(keys, key=lambda key: order.index(key[0]))
    )


def _part(
    key: tuple[str, str], steps: Sequence[tuple[float, Mapping[str, Any]]], seconds: float | None
) -> Part:
    plugin, name = key
    if not steps:
        return Part(plugin=plugin, name=name, seconds=seconds)
    timed = [(whole, told) for whole, told in steps if told["ms"] is not None]
    often = float(steps[-1][1].get("often", 1.0))
    ms = sum(told["ms"] for _, told in timed) / len(timed) * often if timed else None
    sizes = [told["gib"] for _, told in steps if told.get("gib") is not None]
    return Part(
        plugin=plugin,
        name=name,
        ms=ms,
        share=None if ms is None else ms / (sum(whole for whole, _ in timed) / len(timed)),
        seconds=seconds,
        gib=max(sizes) if sizes else None,
        samples=len(steps),
        note=str(steps[-1][1].get("note", "")),
    )


def mean_parts(runs: Sequence[Sequence[Part]]) -> tuple[Part, ...]:
    """The parts of several runs of one kind: means over the runs, samples added up."""
    found: dict[tuple[str, str], list[Part]] = {}
    for part in (part for parts in runs for part in parts):
        found.setdefault((part.plugin, part.name), []).append(part)
    return tuple(
        replace(
            own[0],
            ms=_mean([part.ms for part in own]),
            share=_mean([part.share for part in own]),
            seconds=_mean([part.seconds for part in own]),
            gib=_mean([part.gib for part in own]),
            samples=sum(part.samples for part in own),
        )
        for own in found.values()
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def series_of(parts: Sequence[Part]) -> dict[str, float]:
    """The parts as a journal's series: ``plugin/NAME/PART/ms`` and ``/gib``, and their sums as
    ``plugin/NAME/ms`` and ``plugin/NAME/gib``.
    """
    found: dict[str, float | None] = {}
    for plugin in dict.fromkeys(part.plugin for part in parts):
        found[f"plugin/{plugin}/ms"], found[f"plugin/{plugin}/gib"] = total_of(parts, plugin)
    for part in parts:
        found[f"plugin/{part.plugin}/{part.name}/ms"] = part.ms
        found[f"plugin/{part.plugin}/{part.name}/gib"] = part.gib
    return {name: value for name, value in found.items() if value is not None}


def total_of(parts: Iterable[Part], plugin: str) -> tuple[float | None, float | None]:
    """(ms, GiB) of all parts of a plugin together; None: no part of it knows its own."""
    own = [part for part in parts if part.plugin == plugin]
    ms = [part.ms for part in own if part.ms is not None]
    gib = [part.gib for part in own if part.gib is not None]
    return (sum(ms) if ms else None), (sum(gib) if gib else None)


def _known(kind: type[Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that a later version of us may have added are left out."""
    return {key: value for key, value in told.items() if key in kind.__dataclass_fields__}
