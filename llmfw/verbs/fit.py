"""``llmfw fit``: train, and end with a table that says what it brought."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from llmfw.verbs.options import run_options

if TYPE_CHECKING:
    from rich.table import Table

    from llmfw.core.fit import FitResult
    from llmfw.core.records import Estimate


class _Fit(click.Command):
    """``--resume`` alone means ``--resume=auto``; it never swallows the setting that follows it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, ["--resume=auto" if word == "--resume" else word for word in args])


@click.command("fit", cls=_Fit)
@run_options
@click.option(
    "--resume",
    type=click.Choice(["never", "auto", "must"]),
    default="never",
    metavar="[=auto|must]",
    help="Go on with the newest unfinished run of the same settings, in run.dir or under runs/: "
    "auto (what --resume alone means) starts afresh where there's none, must fails.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as json on standard output.")
def command(resume: str, as_json: bool, **layers: Any) -> None:
    """Train the model of the config on its data, with the plugins that are switched on.

    With no argument: supervised training with the core's defaults. A plugin brings settings under which it
    runs sensibly with no other argument:

        llmfw fit --plugin NAME
    """
    from llmfw.core.assemble import assemble, settle
    from llmfw.core.say import is_main_process

    settled = settle(**layers)  # before anything heavy is imported: a mistyped key is told at once
    from llmfw.core.fit import fit

    result = fit(assemble(settled, "fit", resume=resume), resume=resume)  # type: ignore[arg-type]  # click checked it
    if not is_main_process():
        return
    if as_json:
        click.echo(as_text(result))
        return
    _print(result)


def as_text(result: FitResult) -> str:
    """The result as json."""
    import json
    from dataclasses import asdict

    return json.dumps(asdict(result), indent=2, default=str)


def _print(result: FitResult) -> None:
    from rich.console import Console
    from rich.text import Text

    from llmfw.verbs.costs import line_of, parts_table
    from llmfw.verbs.rounds_table import rounds_table

    console = Console(soft_wrap=True)
    if result.by_round:
        console.print(rounds_table(result.by_round))
        console.print()
    console.print(summary(result))
    if result.cost.parts:
        console.print()
        console.print(parts_table(result.cost.parts))
    if result.stopped_by:
        console.print(Text(f"training stopped after {result.steps} steps: {result.stopped_by}"))
    console.print(Text(f"cost     {line_of(result.cost)}"))
    console.print(Text(f"run      {result.dir}"))
    console.print(Text(f"weights  {result.final}"))
    if result.mlflow.get("run_id"):
        console.print(Text(f"mlflow   {result.mlflow['run_id']} in {result.mlflow.get('uri', '')}"))
    console.print("next:")
    for line in (
        f"llmfw chat model={result.dir}",
        f'llmfw generate "Is 91 a prime number?" model={result.dir}',
        f"llmfw export {result.dir} --out exported",
        "llmfw compare",
        "llmfw ui",
    ):
        console.print(Text(f"  {line}"))


def summary(result: FitResult) -> Table:
    """Training (first and last step), held-out values with 95% intervals, evaluations before and after."""
    from rich.table import Table

    table = Table(title=f"{result.name}: {result.steps} steps", title_justify="left", show_edge=False)
    table.add_column("", no_wrap=True)
    for name in ("before", "after", "95% interval", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    held_out = dict(result.validation)
    bounded = [name for name in held_out if f"{name}/low" in held_out]
    for name in dict.fromkeys(["loss", *bounded]):
        if name in result.last:
            table.add_row(f"training {name}", number(result.first[name]), number(result.last[name]))
    for name in dict.fromkeys(["loss", *bounded]):
        if name in held_out:
            table.add_row(f"held-out {name}", "", number(held_out[name]), *_interval(held_out, name))
    for name, value in result.after.items():
        if name.rsplit("/", 1)[-1] in ("low", "high", "n"):
            continue
        flat = _flat(result.after)
        before = _flat(result.before).get(name)
        table.add_row(
            name, "" if before is None else number(before), number(_value(value)), *_interval(flat, name)
        )
    return table


def number(value: float) -> str:
    """Four significant digits; whole numbers as such."""
    if math.isfinite(value) and value == int(value) and abs(value) < 1e9:
        return f"{int(value):,}"
    return f"{value:.4g}"


def _interval(values: Mapping[str, float], name: str) -> tuple[str, str]:
    low, high = values.get(f"{name}/low"), values.get(f"{name}/high")
    n = values.get(f"{name}/n", values.get(f"{name.rsplit('/', 1)[0]}/n"))
    bounds = "" if low is None or high is None else f"{number(low)} to {number(high)}"
    return bounds, "" if n is None else number(n)


def _value(value: float | Estimate) -> float:
    return value if isinstance(value, (int, float)) else value.value


def _flat(metrics: Mapping[str, float | Estimate]) -> dict[str, float]:
    from llmfw.core.measure import flatten

    return flatten(metrics)
