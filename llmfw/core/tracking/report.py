"""A comparison as one html file that needs no network: to open, to send, to keep with the results.

Whatever comes from a run (names, settings, answers of a model) is escaped; a content security policy lets the
page run the two scripts that stand in it, known by their hashes, and fetch nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from llmfw.core.tracking.charts import chart_data, charts, color, cut, dash
from llmfw.core.tracking.comparison import Comparison, Difference, Metric
from llmfw.core.tracking.evaluations import STAGE
from llmfw.core.tracking.files import write_text
from llmfw.core.tracking.sides import Rows, Side
from llmfw.core.tracking.terminal import (
    chosen,
    duration,
    improved_before_end,
    number,
    shown,
    signed,
    verdict,
)

MOST_ROWS = 100
LONGEST_CELL = 2000

_ARROWS = {"min": " ↓", "max": " ↑", None: ""}
_METRICS_NOTE = (
    '<p class="soft small">first → final value, with its 95% interval and sample size where it was '
    "estimated; in brackets the difference to the baseline. What begins with end/ was measured before "
    "training (first) and after it.</p>"
)
_FILTER = (
    '<p class="controls"><input type="search" id="filter" placeholder="filter metrics and curves" '
    'aria-label="filter metrics and curves"></p>'
)
_SMOOTHING = (
    '<p class="controls"><label>smoothing <input type="range" id="smoothing" min="0" max="98" value="0">'
    "</label><span>drag to zoom, double click to see everything again</span></p>"
)
_MEANING = {"min": "lower is better", "max": "higher is better", None: ""}


def write_report(comparison: Comparison, path: Path) -> None:
    """Write the report, replacing an older one whole. OSError is passed on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, render(comparison))


def render(comparison: Comparison) -> str:
    """The page."""
    from plotly.offline import get_plotlyjs

    style = _asset("report.css")
    scripts = (get_plotlyjs().replace("\r\n", "\n"), _asset("report.js"))
    found = charts(comparison)
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
        "form-action 'none'; "
        f"script-src {' '.join(_hash(script) for script in scripts)}"
    )
    names = ", ".join(side.record.name for side in comparison.sides)
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="referrer" content="no-referrer">',
            f"<title>llmfw: {escape(names)}</title>",
            f"<style>{style}</style></head><body>",
            *_body(comparison, found),
            f'<script type="application/json" id="data">{_json(chart_data(comparison, found))}</script>',
            *(f"<script>{script}</script>" for script in scripts),
            "</body></html>\n",
        ]
    )


def _body(comparison: Comparison, drawn: Sequence[dict[str, Any]]) -> Iterable[str]:
    several = len(comparison.sides) > 1
    yield f"<header><h1>{'Runs side by side' if several else 'One run'}</h1>"
    yield f'<p class="soft">llmfw compare, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC</p></header>'
    yield _navigation(comparison, drawn)
    if comparison.cautions:
        items = "".join(f"<li>{escape(caution)}</li>" for caution in comparison.cautions)
        yield f'<ul class="cautions">{items}</ul>'
    yield f'<h2 id="runs">Runs</h2>{_runs(comparison)}'
    if several:
        yield _differences(comparison, "settings", "Settings that differ", comparison.settings)
        yield _differences(comparison, "versions", "Versions and machines that differ", comparison.versions)
    yield _metrics(comparison)
    yield from _figures(drawn)
    yield from _tables(comparison)
    yield '<h2 id="configs">Whole settings</h2>'
    for side in comparison.sides:
        lines = "\n".join(f"{key}: {shown(value)}" for key, value in sorted(side.view.params.items()))
        yield f"<details><summary>{escape(side.label)} · {escape(side.record.name)}</summary>"
        yield f"<pre><code>{escape(lines)}</code></pre></details>"


def _navigation(comparison: Comparison, drawn: Sequence[dict[str, Any]]) -> str:
    places = [("runs", "Runs"), ("metrics", "Metrics")]
    places += [("curves", "Curves")] if any(chart["kind"] == "curve" for chart in drawn) else []
    places += [("tables", "Tables")] if any(side.tables for side in comparison.sides) else []
    links = "".join(f'<a href="#{place}">{title}</a>' for place, title in [*places, ("configs", "Settings")])
    chips = "".join(
        f'<span class="chip"><i class="{dash(index)}" style="border-top-color:{color(index)}"></i>'
        f"<b>{escape(side.label)}</b> {escape(cut(side.record.name, 40))}</span>"
        for index, side in enumerate(comparison.sides)
    )
    return f'<nav>{links}<span class="chips">{chips}</span></nav>'


def _runs(comparison: Comparison) -> str:
    rows = []
    for index, side in enumerate(comparison.sides):
        notes = ["baseline"] if index == comparison.baseline else []
        notes += ["an evaluation: nothing was trained"] if side.record.verb == STAGE else []
        notes += (
            [f"same numbers as {comparison.twins[index]}, bit for bit"] if comparison.twins[index] else []
        )
        cells = [
            f"<b>{escape(side.label)}</b>",
            escape(side.record.name),
            f"<code>{escape(str(side.record.dir))}</code>",
            f'<span class="status {side.record.status}">{side.record.status}</span>',
            str(side.view.last_step),
            duration(side.view.seconds),
            _class(side),
            escape(
                ", ".join(f"{name} ({origin})" if origin else name for name, origin in side.plugins.items())
            )
            or "–",
            escape(side.record.created[:16].replace("T", " ")),
            f'<span class="soft">{escape(", ".join(notes))}</span>',
        ]
        rows.append("".join(f"<td>{cell}</td>" for cell in cells))
    return _table(
        ("", "name", "folder", "status", "steps", "time", "class", "plugins", "begun (UTC)", ""), rows
    )


def _class(side: Side) -> str:
    """The resume class; what keeps it from a better one shows under the pointer."""
    why = escape("; ".join(side.record.resume_reasons) or "bit for bit")
    return f'<span title="{why}">{side.record.resume_class}</span>' if side.record.resume_class else "–"


def _differences(comparison: Comparison, place: str, title: str, found: Sequence[Difference]) -> str:
    head = f'<h2 id="{place}">{title}</h2>'
    if not found:
        return f'{head}<p class="soft">none</p>'
    rows = []
    for item in found:
        base = item.values[comparison.baseline]
        cells = "".join(
            f"<td{_base(comparison, index)}>{_bold(escape(cut(shown(value), 300)), value != base)}</td>"
            for index, value in enumerate(item.values)
        )
        rows.append(f"<th>{escape(item.key)}</th>{cells}")
    return head + _table(("", *(side.label for side in comparison.sides)), rows)


def _metrics(comparison: Comparison) -> str:
    telling = chosen(comparison)
    rest = [metric for metric in comparison.metrics if metric not in telling]
    notes = "".join(f"<li>{escape(note)}</li>" for note in comparison.afterwards)
    measured = f"<p>Measured afterwards (llmfw evaluate): what begins with evaluate/</p><ul>{notes}</ul>"
    text = f'<h2 id="metrics">Metrics</h2>{_METRICS_NOTE}{measured if notes else ""}{_FILTER}'
    if telling:
        text += _metric_table(comparison, telling)
    if rest:
        text += f"<details><summary>{len(rest)} more</summary>{_metric_table(comparison, rest)}</details>"
    return text


def _metric_table(comparison: Comparison, metrics: Sequence[Metric]) -> str:
    rows = []
    for metric in metrics:
        cells = "".join(
            f"<td{_base(comparison, index)}>{_cell(metric, index)}</td>"
            for index in range(len(comparison.sides))
        )
        arrow = f'<span class="soft" title="{_MEANING[metric.direction]}">{_ARROWS[metric.direction]}</span>'
        rows.append(f"<th>{_name(metric.name)}{arrow}</th>{cells}")
    names = [metric.name for metric in metrics]
    return _table(("", *(side.label for side in comparison.sides)), rows, names)


def _cell(metric: Metric, index: int) -> str:
    final, first, delta = metric.final[index], metric.first[index], metric.delta[index]
    text = f"<b>{escape(number(final))}</b>"
    if first is not None:
        text = f'<span class="first">{escape(number(first))} →</span> {text}'
    if delta is not None and math.isfinite(delta):
        text += f' <span class="{verdict(metric, index) or "same"}">({escape(signed(delta))})</span>'
    more = []
    if metric.low[index] is not None and metric.high[index] is not None:
        more.append(f"[{number(metric.low[index])}, {number(metric.high[index])}]")
    if metric.count[index] is not None:
        more.append(f"n = {number(metric.count[index])}")
    best = improved_before_end(metric, index)
    if best is not None:
        more.append(f"best {number(best[0])} at step {best[1]}")
    return text + (f'<span class="more">{escape(", ".join(more))}</span>' if more else "")


def _figures(drawn: Sequence[dict[str, Any]]) -> Iterable[str]:
    intervals = [(index, chart) for index, chart in enumerate(drawn) if chart["kind"] == "interval"]
    if intervals:
        yield f'<h2 id="intervals">Estimates with 95% intervals</h2>{_grid(intervals)}'
    curves = [(index, chart) for index, chart in enumerate(drawn) if chart["kind"] == "curve"]
    if not curves:
        return
    yield f'<h2 id="curves">Curves</h2>{_SMOOTHING}'
    lively = [item for item in curves if item[1]["flat"] is None]
    rest = [item for item in lively if not item[1]["telling"]]
    yield _grid([item for item in lively if item[1]["telling"]])
    if rest:
        yield f'<details class="more-curves"><summary>{len(rest)} more</summary>{_grid(rest)}</details>'
    flat = [f"{chart['name']} = {number(chart['flat'])}" for _, chart in curves if chart["flat"] is not None]
    if flat:
        yield f'<p class="soft small">The same at every step of every run: {escape(", ".join(flat))}</p>'


def _grid(numbered: Sequence[tuple[int, dict[str, Any]]]) -> str:
    figures = []
    for index, chart in numbered:
        notes = "".join(f" <small>· {escape(note)}</small>" for note in chart["notes"])
        caption = f"{_name(chart['name'])}{_ARROWS[chart['direction']]}{notes}"
        figures.append(
            f'<figure data-name="{escape(chart["name"])}"><figcaption>{caption}</figcaption>'
            f'<div class="chart" data-chart="{index}"></div></figure>'
        )
    return f'<div class="charts">{"".join(figures)}</div>'


def _tables(comparison: Comparison) -> Iterable[str]:
    names = sorted({name for side in comparison.sides for name in side.tables})
    if names:
        yield '<h2 id="tables">Tables</h2>'
    for name in names:
        owners = [(side.label, side.tables[name]) for side in comparison.sides if name in side.tables]
        sizes = ", ".join(f"{label} {len(rows)} rows" for label, rows in owners)
        yield f'<details class="tables"><summary>{escape(name)}'
        yield f'<span class="soft"> ({escape(sizes)})</span></summary>'
        columns, rows = side_by_side(owners)
        body = [
            "".join(f"<td>{escape(cut(_value(value), LONGEST_CELL))}</td>" for value in row)
            for row in rows[:MOST_ROWS]
        ]
        yield _table(columns, body)
        if len(rows) > MOST_ROWS:
            yield f'<p class="soft small">{len(rows) - MOST_ROWS} more rows stand in the files.</p>'
        yield "</details>"


def side_by_side(owners: Sequence[tuple[str, Rows]]) -> tuple[list[str], list[list[Any]]]:
    """Tables of one name as one: a column that is the same in all stands once, any other once for each run.

    Tables of different lengths can't be matched row by row; they are put below one another with the run's
    label in front.
    """
    columns = list(dict.fromkeys(key for _, rows in owners for row in rows for key in row))
    if len({len(rows) for _, rows in owners}) > 1:
        return ["run", *columns], [
            [label, *(row.get(key) for key in columns)] for label, rows in owners for row in rows
        ]
    first = owners[0][1]
    shared = [
        key
        for key in columns
        if all([row.get(key) for row in rows] == [row.get(key) for row in first] for _, rows in owners)
    ]
    own = [(key, index) for key in columns if key not in shared for index in range(len(owners))]
    head = [*shared, *(f"{key} · {owners[index][0]}" for key, index in own)]
    rows = [
        [*(first[line].get(key) for key in shared), *(owners[index][1][line].get(key) for key, index in own)]
        for line in range(len(first))
    ]
    return head, rows


def _table(columns: Sequence[str], rows: Sequence[str], names: Sequence[str] | None = None) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    marks = [f' data-name="{escape(name)}"' for name in names] if names is not None else [""] * len(rows)
    body = "".join(f"<tr{mark}>{row}</tr>" for mark, row in zip(marks, rows))
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _name(name: str) -> str:
    """A metric's name that may be broken behind slashes and underscores."""
    return escape(name).replace("/", "/<wbr>").replace("_", "_<wbr>")


def _base(comparison: Comparison, index: int) -> str:
    return ' class="base"' if index == comparison.baseline and len(comparison.sides) > 1 else ""


def _bold(text: str, really: bool) -> str:
    return f"<b>{text}</b>" if really else text


def _value(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, float):
        return number(value)
    return shown(value)


def _json(value: Any) -> str:
    """Json that can stand inside a script element: nothing in it can end the element or begin a comment."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _asset(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")
