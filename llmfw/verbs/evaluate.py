"""``llmfw evaluate`` and ``validate``: what held-out rows and the plugins' evaluations say of a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from llmfw.core.errors import DataError
from llmfw.verbs.opening import open_model
from llmfw.verbs.options import run_options

if TYPE_CHECKING:
    from llmfw.core.records import Estimate

_PARTS = ("/low", "/high", "/n")
_WIDE = 60
"""Characters of a text in a printed table; --json has all of it."""


@click.command("evaluate")
@run_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def command(as_json: bool, **layers: Any) -> None:
    """Measure a model without training: the held-out loss and the plugins' evaluations.

    model= takes a preset, a hub id, a folder, a run's folder, a checkpoint or an MLflow run id. Of a run,
    data, plugins and their settings are the run's own unless --config or KEY=VALUE change them.
    """
    from llmfw.core.measure import flatten
    from llmfw.core.open import evaluate_policy

    validation, measured = evaluate_policy(open_model("evaluate", layers))
    if not validation and not measured.metrics and not measured.tables:
        raise DataError(
            "NOTHING-TO-EVALUATE",
            "no rows are held out, and no plugin measures anything",
            mend="set data.validation, or switch on a plugin with evaluations (llmfw plugins list)",
        )
    if as_json:
        tables = {name: [dict(row) for row in rows] for name, rows in measured.tables.items()}
        found = {"validation": dict(validation), "metrics": flatten(measured.metrics), "tables": tables}
        click.echo(json.dumps(found, ensure_ascii=False, indent=2, default=str))
        return
    print_metrics("held-out rows", validation)
    print_metrics("evaluations", measured.metrics)
    for name, rows in measured.tables.items():
        print_rows(name, rows)


@click.command("validate")
@run_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def validate_command(as_json: bool, **layers: Any) -> None:
    """Compute a model's held-out loss and its metrics, without the plugins' evaluations."""
    from llmfw.core.open import validate_policy

    validation = validate_policy(open_model("validate", layers))
    if not validation:
        raise DataError(
            "NOTHING-TO-VALIDATE",
            "no rows are held out",
            mend="set data.validation to a share or a file",
            key="data.validation",
        )
    if as_json:
        click.echo(json.dumps(dict(validation), indent=2))
    else:
        print_metrics("held-out rows", validation)


def print_metrics(title: str, metrics: Mapping[str, float | Estimate]) -> None:
    """Names, values, and 95% intervals with the number of items where they're known."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from llmfw.core.measure import flatten

    if not metrics:
        return
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for column in ("metric", "value", "95% interval", "n"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    flat = flatten(metrics)
    for name, value in flat.items():
        if name.endswith(_PARTS) and name.rpartition("/")[0] in flat:
            continue
        low, high, n = (flat.get(name + part) for part in _PARTS)
        interval = f"{low:.6g} to {high:.6g}" if low is not None and high is not None else ""
        table.add_row(Text(name), f"{value:.6g}", interval, "" if n is None else f"{n:.0f}")
    Console().print(table)


def print_rows(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """A table of an evaluation."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return
    table = Table(title=Text(title), title_justify="left", show_edge=False, pad_edge=False)
    for column in rows[0]:
        table.add_column(Text(str(column)))
    for row in rows:
        table.add_row(*(Text(_short(value)) for value in row.values()))
    Console().print(table)


def _short(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else " ".join(str(value).split())
    return text if len(text) <= _WIDE else text[: _WIDE - 1] + "…"
