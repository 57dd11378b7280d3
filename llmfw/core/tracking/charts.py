"""What the report's charts show, as plain data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from llmfw.core.tracking.comparison import Comparison
from llmfw.core.tracking.terminal import chosen

MOST_POINTS = 2000
"""Points of a curve; a longer one is thinned out evenly, and the report says so."""
# told apart on white and on black, also by most who see few colours; from the eleventh run on the line's
# dashes differ
_COLORS = (
    "#2f7ed8",
    "#e6820e",
    "#1aa179",
    "#d1495b",
    "#8c6bd1",
    "#17a2b8",
    "#c7569b",
    "#7a9a01",
    "#b5651d",
    "#6b7a90",
)


def charts(comparison: Comparison) -> list[dict[str, Any]]:
    """A chart for each estimate and each series of several steps; ``flat``: a value that never changes."""
    telling = chosen(comparison)
    found: list[dict[str, Any]] = []
    for metric in comparison.metrics:
        about = {"name": metric.name, "direction": metric.direction, "telling": metric in telling}
        spans = [
            {"run": index, "value": value, "low": low, "high": high}
            for index, (value, low, high) in enumerate(zip(metric.final, metric.low, metric.high))
            if _finite(value, low, high)
        ]
        if spans:
            found.append({**about, "kind": "interval", "runs": spans, "notes": []})
        curves = [
            _curve(index, side.view.series.get(metric.name, []))
            for index, side in enumerate(comparison.sides)
        ]
        values = {value for curve in curves for value in curve["y"] if value is not None}
        if values and any(len(curve["x"]) > 1 for curve in curves):
            runs = [{key: curve[key] for key in ("run", "x", "y")} for curve in curves if curve["x"]]
            flat = values.pop() if len(values) == 1 else None
            found.append({**about, "kind": "curve", "runs": runs, "notes": _notes(curves), "flat": flat})
    return found


def _curve(index: int, points: Sequence[tuple[int, float]]) -> dict[str, Any]:
    stride = math.ceil(len(points) / MOST_POINTS) or 1
    kept = [*points[::stride], *(points[-1:] if (len(points) - 1) % stride else [])]
    return {
        "run": index,
        "x": [step for step, _ in kept],
        "y": [value if math.isfinite(value) else None for _, value in kept],
        "stride": stride,
        "gaps": sum(not math.isfinite(value) for _, value in points),
    }


def _notes(curves: Sequence[dict[str, Any]]) -> list[str]:
    gaps, stride = sum(curve["gaps"] for curve in curves), max(curve["stride"] for curve in curves)
    notes = [f"{gaps} values not finite"] if gaps else []
    return notes + ([f"one point in {stride}"] if stride > 1 else [])


def chart_data(comparison: Comparison, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the page's script reads."""
    # the plotting library reads a small markup in names; there it gets none
    runs = [
        {
            "name": escape(f"{side.label} · {cut(side.record.name, 40)}"),
            "color": color(index),
            # a curve that lies on an older one's leaves that visible
            "dash": "dot" if comparison.twins[index] else dash(index),
        }
        for index, side in enumerate(comparison.sides)
    ]
    plain = [{key: chart[key] for key in ("kind", "runs")} for chart in found]
    return {"runs": runs, "charts": plain}


def cut(text: str, most: int) -> str:
    """The text, at most so many characters long."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def color(index: int) -> str:
    """Colour of a run."""
    return _COLORS[index % len(_COLORS)]


def dash(index: int) -> str:
    """Line of a run."""
    return ("solid", "dash")[index // len(_COLORS) % 2]


def _finite(*values: float | None) -> bool:
    return all(value is not None and math.isfinite(value) for value in values)
