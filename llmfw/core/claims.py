"""What a plugin's ``reproduce.py`` states: claims, and the arms whose runs decide them.

Nothing here imports torch, so that claims can be listed before anything heavy is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Size = Literal["smoke", "small", "full"]
Kind = Literal["greater", "equivalent", "not_worse", "level"]
Values = Mapping[str, float | Sequence[float]]
"""Metric -> its value in one run; a list where it's known item by item (texts, problems), in a fixed order.
"""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One statement of a paper that a command can re-run. It is committed before its first small run.

    The difference that is judged is (method - baseline) of ``metric``, paired by seed, and turned round where
    ``direction`` is lower, so that a positive one is always in the paper's favour.

    ``greater``: the difference is above 0 and at least ``effect``. ``equivalent``: it lies within +-
    ``effect``. ``not_worse``: it is above -``effect``. ``level``: the method's own value is at
    ``effect`` or above (or below, where direction is lower); there is no baseline.
    """

    id: str
    """plugin.number, e.g. ``mine.1``."""
    statement: str
    """One sentence, with what is compared."""
    paper: str
    """The paper's own figure and its place, e.g. "Table 2: 393 -> 308 tokens"; or that it gives none."""
    metric: str
    """Name among the arms' values."""
    kind: Kind = "greater"
    direction: Literal["higher", "lower"] = "higher"
    effect: float = 0.0
    """Smallest effect that counts (greater), margin (equivalent, not_worse) or level; in ``unit``."""
    unit: str = ""
    """The metric's unit, for tables: tokens, nats, share ..."""
    arms: tuple[str, ...] = ()
    """(baseline, method); of a ``level`` (method,)."""
    controls: tuple[str, ...] = ()
    """Further arms that are compared with the method and shown beside it; they decide nothing."""
    seeds: Mapping[Size, tuple[int, ...]] = field(default_factory=dict)
    """Seeds of each size; a size without an entry doesn't run this claim."""
    items: bool = False
    """The interval is a bootstrap over the items of a per-item metric instead of a t interval over seeds."""
    not_tested: str = ""
    """Why this machine can't test it; such a claim has no arms, and its verdict is "not tested"."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One thing that is run for every seed: a training (``fit`` with these plugins and settings), or a
    function.

    All arms of one seed see the same data in the same order, which is checked, unless ``own_data`` says that
    the data are what is compared.
    """

    about: str
    """One line for tables."""
    plugins: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Key -> value, as on the command line; ``seed`` is set by the command."""
    prepare: Callable[[Path], Mapping[str, Any]] | None = None
    """Called with a folder that all arms of the seed with the same function share; writes files there
    and returns further settings. Called again after a kill, so it must be repeatable."""
    after: str | None = None
    """An arm of the same seed from whose final weights this one starts."""
    values: Callable[[Any], Values] | None = None
    """Further values from the ``llmfw.FitResult``. Always there: the last training metrics under their
    names, evaluations at the end under theirs, held-out metrics as ``validation/NAME``."""
    run: Callable[[Workspace], Values] | None = None
    """In place of a training: measures something in a folder of its own and returns its values."""
    own_data: bool = False


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """Where an arm's ``run`` works; what it leaves in ``dir`` is kept."""

    dir: Path
    seed: int
    size: Size
    starts_from: Path | None = None
    """Final weights of the arm that ``after`` names."""
