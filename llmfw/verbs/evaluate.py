"""``llmfw evaluate`` and ``validate``: what held-out rows, tasks and plugins' evaluations say of a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from llmfw.core.errors import DataError
from llmfw.verbs.opening import assemble_model
from llmfw.verbs.options import run_options

if TYPE_CHECKING:
    from llmfw.core.assemble import Assembled
    from llmfw.core.open import Evaluated
    from llmfw.core.records import Estimate

_PARTS = ("/low", "/high", "/n")
_MOST_ROWS = 20
"""Rows of a printed table."""
_WIDE = 60
"""Characters of a text in a printed table; --json has all of it."""


@click.command("evaluate")
@run_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
@click.option("--no-save", is_flag=True, help="Print what is measured, and keep it nowhere.")
def command(as_json: bool, no_save: bool, **layers: Any) -> None:
    """Measure a model without training: the held-out loss, evaluation.metrics, tasks of lm-eval, and the
    plugins' evaluations.

    model= takes a preset, a hub id, a folder, a run's folder, a checkpoint or an MLflow run id. Of a run,
    data, plugins and their settings are the run's own unless --config or KEY=VALUE change them, and what is
    measured is kept in its folder; of any other model it is kept as a run of its own: see llmfw compare.
    """
    from llmfw.core.open import evaluate_model

    assembled = assemble_model("evaluate", layers)
    found = evaluate_model(assembled, save=not no_save)
    if as_json:
        click.echo(json.dumps(_plain(found, assembled), ensure_ascii=False, indent=2, default=str))
        return
    print_metrics("held-out rows", found.validation)
    print_metrics("evaluations", found.measured.metrics)
    for name, rows in found.measured.tables.items():
        print_rows(name, rows)
    if found.kept is not None:
        click.echo(f"kept in {found.kept}   (llmfw compare shows it)")


def _plain(found: Evaluated, assembled: Assembled) -> dict[str, Any]:
    """Everything that was measured, and of what; numbers that aren't finite as words."""
    from llmfw.core.measure import flatten
    from llmfw.core.tracking.journal import encode

    return {
        "model": assembled.resolved.root.model.name,
        "kept": None if found.kept is None else str(found.kept),
        "notes": list(assembled.plan.notes),
        "plan": assembled.plan.hash,
        "seconds": found.measured.seconds,
        "validation": {name: encode(value) for name, value in found.validation.items()},
        "metrics": {name: encode(value) for name, value in flatten(found.measured.metrics).items()},
        "tables": {name: [dict(row) for row in rows] for name, rows in found.measured.tables.items()},
    }


@click.command("validate")
@run_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def validate_command(as_json: bool, **layers: Any) -> None:
    """Compute a model's held-out loss and its metrics, without any evaluation."""
    from llmfw.core.open import validate_model

    validation = validate_model(assemble_model("validate", layers))
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
    for row in rows[:_MOST_ROWS]:
        table.add_row(*(Text(_short(value)) for value in row.values()))
    console = Console()
    console.print(table)
    if len(rows) > _MOST_ROWS:
        console.print(Text(f"and {len(rows) - _MOST_ROWS} more rows: --json has them all"))


def _short(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else " ".join(str(value).split())
    return text if len(text) <= _WIDE else text[: _WIDE - 1] + "…"
