"""A comparison as tables in the terminal. Texts that come from a run are never read as markup."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from llmfw.core.tracking.afterwards import PREFIX
from llmfw.core.tracking.comparison import Comparison, Difference, Metric
from llmfw.core.tracking.evaluations import STAGE

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

MOST_VERSIONS = 12
_BETTER = {"min": "↓", "max": "↑", None: " "}


def chosen(comparison: Comparison, wanted: Sequence[str] = (), *, everything: bool = False) -> list[Metric]:
    """The metrics to show: those that ``wanted`` names (shell patterns), else the telling ones.

    Telling is what an evaluation measured at the end, and what has a better direction.
    """
    if wanted:
        return [
            metric for metric in comparison.metrics if any(_fits(metric.name, pattern) for pattern in wanted)
        ]
    if everything:
        return list(comparison.metrics)
    return [
        metric
        for metric in comparison.metrics
        if (metric.direction is not None or metric.name.startswith(("end/", "round/", PREFIX)))
        and not metric.name.endswith("/n")
        and not _part_of_a_cost(metric.name)
    ]


def _part_of_a_cost(name: str) -> bool:
    """``plugin/NAME/loss/ms``: the sum, ``plugin/NAME/ms``, is the telling one."""
    return name.startswith("plugin/") and name.count("/") > 2


def tables(comparison: Comparison, metrics: Sequence[Metric]) -> Iterator[RenderableType]:
    """The parts, from top to bottom."""
    from rich.text import Text

    yield _runs(comparison)
    if len(comparison.sides) > 1:
        yield _differences(comparison, "Settings that differ", comparison.settings, "none")
        cut = comparison.versions[:MOST_VERSIONS]
        more = len(comparison.versions) - len(cut)
        yield _differences(comparison, "Versions and machines that differ", cut, "none")
        if more:
            yield Text(f"  and {more} more packages", style="dim")
    if metrics:
        yield _metrics(comparison, metrics)
    if comparison.afterwards:
        yield Text("Measured afterwards (llmfw evaluate): metrics that begin with evaluate/", style="bold")
    for note in comparison.afterwards:
        yield Text(f"  {note}")
    for caution in comparison.cautions:
        yield Text(f"! {caution}", style="yellow")


def number(value: float | None) -> str:
    """A number with four digits that count; whole numbers as such."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("∞" if value > 0 else "-∞")
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.4g}"


def signed(value: float) -> str:
    """A difference, with its sign."""
    return "±0" if value == 0 else (number(value) if value < 0 else f"+{number(value)}")


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def shown(value: Any) -> str:
    """A setting's value."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ", ".join(shown(item) for item in value) or "none"
    return number(value) if isinstance(value, float) and not math.isfinite(value) else str(value)


def spans(metric: Metric, index: int) -> str:
    """What a run's cell says: first → final, the interval, the sample size."""
    text = number(metric.final[index])
    if metric.first[index] is not None:
        text = f"{number(metric.first[index])} → {text}"
    if metric.low[index] is not None and metric.high[index] is not None:
        text += f" [{number(metric.low[index])}, {number(metric.high[index])}]"
    if metric.count[index] is not None:
        text += f" n={number(metric.count[index])}"
    return text


def verdict(metric: Metric, index: int) -> str:
    """better, worse, or nothing to say, compared with the baseline."""
    delta = metric.delta[index]
    if delta is None or not math.isfinite(delta) or delta == 0 or metric.direction is None:
        return ""
    return "better" if (delta < 0) == (metric.direction == "min") else "worse"


def improved_before_end(metric: Metric, index: int) -> tuple[float, int] | None:
    """The best value and its step, where the final one isn't it."""
    best = metric.best[index]
    return None if best is None or best[0] == metric.final[index] else best


def _fits(name: str, pattern: str) -> bool:
    return name == pattern or fnmatchcase(name, pattern) or name.startswith(f"{pattern.rstrip('/')}/")


def _table(title: str, columns: Sequence[str]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(Text(column), overflow="fold", no_wrap=index == 0)
    return table


def _runs(comparison: Comparison) -> Table:
    from rich.text import Text

    table = _table("Runs", ("", "name", "folder", "status", "steps", "time", "class", "plugins", ""))
    for index, side in enumerate(comparison.sides):
        record = side.record
        note = "baseline" if index == comparison.baseline else ""
        if record.verb == STAGE:
            note = ", ".join(filter(None, (note, "an evaluation: nothing was trained")))
        if comparison.twins[index]:
            note = ", ".join(filter(None, (note, f"same numbers as {comparison.twins[index]}, bit for bit")))
        style = {"FINISHED": "green", "RUNNING": "cyan"}.get(record.status, "red")
        table.add_row(
            Text(side.label, style="bold"),
            Text(record.name),
            Text(str(record.dir)),
            Text(record.status, style=style),
            str(side.view.last_step),
            duration(side.view.seconds),
            record.resume_class or "–",
            Text(", ".join(side.plugins) or "–"),
            Text(note, style="dim"),
        )
    return table


def _differences(
    comparison: Comparison, title: str, found: Sequence[Difference], none: str
) -> RenderableType:
    from rich.text import Text

    if not found:
        return Text.assemble((f"{title}: ", "bold"), none)
    table = _table(title, ("", *(side.label for side in comparison.sides)))
    for item in found:
        base = item.values[comparison.baseline]
        cells = [Text(shown(value), style="" if value == base else "cyan") for value in item.values]
        table.add_row(Text(item.key), *cells)
    return table


def _metrics(comparison: Comparison, metrics: Sequence[Metric]) -> Table:
    from rich.text import Text

    base = comparison.sides[comparison.baseline].label
    title = "Metrics: first → final" + (f", (difference to {base})" if len(comparison.sides) > 1 else "")
    table = _table(title, ("", *(side.label for side in comparison.sides)))
    for metric in metrics:
        cells = [_cell(metric, index) for index in range(len(comparison.sides))]
        table.add_row(Text(f"{_BETTER[metric.direction]} {metric.name}"), *cells)
    return table


def _cell(metric: Metric, index: int) -> Text:
    from rich.text import Text

    text = Text(spans(metric, index))
    delta = metric.delta[index]
    if delta is not None and math.isfinite(delta):
        style = {"better": "green", "worse": "red"}.get(verdict(metric, index), "dim")
        text.append(f" ({signed(delta)})", style=style)
    best = improved_before_end(metric, index)
    if best is not None:
        text.append(f"\nbest {number(best[0])} at step {best[1]}", style="dim")
    return text
