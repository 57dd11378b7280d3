"""What can be seen of a run, and where two runs part."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmfw.testing.laws import broken

if TYPE_CHECKING:
    from torch import Tensor

    from llmfw.core.records import Completion

MAIN = ("loss", "grad_norm", "validation/loss")
"""Series that every training has, whatever its loss logs beside them."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training as its folder shows it. ``data``: hash of its samples' tokens and masks."""

    series: Mapping[str, Sequence[tuple[int, float]]]
    ids: Sequence[Sequence[str]]
    """Sample ids, step by step."""
    data: str
    weights: Mapping[str, Tensor]


def trainings(folder: Path) -> list[Path]:
    """The folders of a run's trainings: its rounds', or its own."""
    return sorted(folder.glob("rounds/[0-9]*")) or [folder]


def seen(folder: Path) -> Training:
    """What a finished training left in its folder."""
    from safetensors.torch import load_file

    from llmfw.core.tracking import read_journal
    from llmfw.core.tracking.reader import UNREPEATABLE

    view = read_journal(folder / "journal.jsonl")
    files = sorted((folder / "final").glob("*.safetensors"))
    return Training(
        series={name: view.series[name] for name in sorted(view.series) if not name.startswith(UNREPEATABLE)},
        ids=[event.fields["sample_ids"] for event in view.of("consumed")],
        data=str(view.of("data")[-1].fields["fingerprint"]) if view.of("data") else "",
        weights={
            f"{file.stem}:{name}": value for file in files for name, value in sorted(load_file(file).items())
        },
    )


def rounds(folder: Path) -> list[Any]:
    """What a sampler gave, round by round."""
    return [json.loads((place / "round.json").read_text()) for place in sorted(folder.glob("rounds/[0-9]*"))]


def difference(
    one: Training, other: Training, *, tolerance: float = 0.0, names: Sequence[str] = ()
) -> str | None:
    """Where two trainings part first, in words; None: nowhere.

    ``tolerance`` is relative to the larger of 1 and the value; 0: bit for bit. ``names``: the series that
    count, where both have them; none named: all of them. Weights that ``other`` lacks don't count.
    """
    for step, (left, right) in enumerate(zip(one.ids, other.ids), 1):
        if list(left) != list(right):
            return f"step {step} trains on {', '.join(left)} here and on {', '.join(right)} there"
    if len(one.ids) != len(other.ids):
        return f"{len(one.ids)} steps here, {len(other.ids)} there"
    for name in names or sorted({*one.series, *other.series}):
        if names and not (name in one.series and name in other.series):
            continue
        found = series_difference(
            name, one.series.get(name, ()), other.series.get(name, ()), tolerance=tolerance
        )
        if found:
            return found
    return weights_difference(one.weights, other.weights, tolerance)


def series_difference(
    name: str, one: Sequence[tuple[int, float]], other: Sequence[tuple[int, float]], *, tolerance: float
) -> str | None:
    """Where two series part first; ``tolerance`` as of ``difference``."""
    left, right = dict(one), dict(other)
    for step in sorted({*left, *right}):
        if step not in left or step not in right:
            return f"{name} of step {step} is there only once"
        a, b = left[step], right[step]
        if a.hex() != b.hex() and not abs(a - b) <= tolerance * max(1.0, abs(a), abs(b)):
            return f"{name} of step {step} is {a!r} here and {b!r} there ({abs(a - b):.3g} apart)"
    return None


def weights_difference(
    one: Mapping[str, Tensor], other: Mapping[str, Tensor], tolerance: float = 0.0
) -> str | None:
    """The first of ``other``'s weights that ``one`` lacks or has otherwise; ``tolerance`` as of
    ``difference``.
    """
    for name, right in other.items():
        if name not in one:
            return f"the weights lack {name}"
        left = one[name]
        if left.shape != right.shape:
            return f"{name} has the shape {tuple(left.shape)} here and {tuple(right.shape)} there"
        apart = (left.double() - right.double()).abs()
        if not left.equal(right) and not bool((apart <= tolerance * right.double().abs().clamp(min=1)).all()):
            return f"{name} ends up to {float(apart.max()):.3g} apart"
    return None


# --- answers ------------------------------------------------------------------------------------------------


def output_difference(
    one: Sequence[Completion], other: Sequence[Completion], *, tolerance: float = 0.0
) -> str | None:
    """Where two lists of answers part first: tokens, and (where both have them) their log-probs."""
    for number, (left, right) in enumerate(zip(one, other, strict=True)):
        if left.ids != right.ids:
            at = next(
                (i for i, (a, b) in enumerate(zip(left.ids, right.ids)) if a != b),
                min(len(left.ids), len(right.ids)),
            )
            a, b = left.ids[at : at + 4], right.ids[at : at + 4]
            return f"answer {number} parts at token {at}: {list(a)} here, {list(b)} there"
        for at, (p, q) in enumerate(zip(left.logps or (), right.logps or ())):
            if p != q and not abs(p - q) <= tolerance:
                return f"the log-prob of token {at} of answer {number} is {p!r} here and {q!r} there"
    return None


def same_outputs(
    one: Sequence[Completion], other: Sequence[Completion], *, tolerance: float = 0.0, mend: str
) -> None:
    """Raise Violation where two lists of answers part."""
    found = output_difference(one, other, tolerance=tolerance)
    if found:
        raise broken(found, mend=mend)


@contextmanager
def forward_calls() -> Iterator[Counter[tuple[str, tuple[int, ...]]]]:
    """Counts the forward passes inside the block: by class of module and shape of its first tensor."""
    import torch
    from torch.nn.modules.module import register_module_forward_pre_hook

    counts: Counter[tuple[str, tuple[int, ...]]] = Counter()

    def note(module: Any, given: tuple[Any, ...]) -> None:
        first = next((value for value in given if isinstance(value, torch.Tensor)), None)
        counts[type(module).__name__, () if first is None else tuple(first.shape)] += 1

    handle = register_module_forward_pre_hook(note)
    try:
        yield counts
    finally:
        handle.remove()
