"""The cost of a run as a value, and as its folder keeps it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
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


def total_of(parts: Iterable[Part], plugin: str) -> tuple[float | None, float | None]:
    """(ms, GiB) of all parts of a plugin together; None: no part of it knows its own."""
    own = [part for part in parts if part.plugin == plugin]
    ms, gib = (
        [value for value in values if value is not None] for values in zip(*((p.ms, p.gib) for p in own))
    )
    return (sum(ms) if ms else None), (sum(gib) if gib else None)


def _known(kind: type[Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that a later version of us may have added are left out."""
    return {key: value for key, value in told.items() if key in kind.__dataclass_fields__}
