"""What runs and plugins' parts cost, as lines and tables of the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from llmfw.core.costs import Cost, Part

MOST_ALIKE = 3
"""More parts of one kind (a plugin's metrics, for one) stand in one row."""


def line_of(cost: Cost) -> str:
    """A run's cost in one line."""
    speed = cost.tokens_per_second
    told = [f"{cost.tokens:,} tokens in {seconds(cost.train_seconds)} of steps"] if cost.tokens else []
    if speed is not None:
        told[-1:] = [f"{told[-1]} ({speed:,.0f} tokens/s)"] if told else []
    told.append(f"{seconds(cost.seconds)} overall")
    if cost.host_gib is not None:
        told.append(f"{memory(cost.host_gib)} at its peak")
    if cost.gpu_gib is not None:
        told.append(f"{memory(cost.gpu_gib)} on the GPU")
    return ", ".join(told)


def parts_table(parts: Sequence[Part]) -> Table:
    """Plugin, part, milliseconds of a step and their share, seconds of the run, memory, a note."""
    from rich.table import Table
    from rich.text import Text

    steps = max((part.samples for part in parts), default=0)
    title = f"what plugins cost (steps measured: {steps})" if steps else "what plugins cost"
    table = Table(title=title, title_justify="left", show_edge=False)
    table.add_column("", no_wrap=True)
    for name in ("ms/step", "of the step", "s in the run", "memory"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for part in _gathered(parts):
        table.add_row(
            Text(f"{part.plugin} {part.name}"),
            "" if part.ms is None else figure(part.ms),
            "" if part.share is None else f"{part.share:.1%}",
            "" if part.seconds is None else figure(part.seconds),
            "" if part.gib is None else memory(part.gib),
            Text(part.note, style="dim"),
        )
    return table


def memory(gib: float) -> str:
    """A size in the unit that suits it."""
    size, unit = gib * 2**30, "B"
    for larger in ("KiB", "MiB", "GiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{figure(size)} {unit}"


def seconds(value: float) -> str:
    """Seconds with three digits that count."""
    return f"{figure(value)} s"


def figure(value: float) -> str:
    """Three digits that count; whole numbers from 100 on."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _gathered(parts: Sequence[Part]) -> list[Part]:
    """Parts, those of one plugin and kind in one where there are many."""
    from llmfw.core.costs import Part

    kinds: dict[tuple[str, str], list[Part]] = {}
    for part in parts:
        kinds.setdefault((part.plugin, part.name.partition("/")[0]), []).append(part)
    found: list[Part] = []
    for (plugin, kind), alike in kinds.items():
        if len(alike) <= MOST_ALIKE:
            found += alike
            continue
        found.append(
            Part(
                plugin=plugin,
                name=f"{len(alike)} {kind}s",
                ms=_sum(part.ms for part in alike),
                share=_sum(part.share for part in alike),
                seconds=_sum(part.seconds for part in alike),
                gib=_sum(part.gib for part in alike),
            )
        )
    return found


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
