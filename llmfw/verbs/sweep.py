"""``llmfw sweep``: a grid or a search over settings, each combination a run of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from llmfw.verbs.options import run_options

if TYPE_CHECKING:
    from llmfw.core.sweep.run import SweepResult
    from llmfw.core.sweep.trials import Trial


@click.command("sweep")
@run_options
@click.option(
    "--sampler", type=click.Choice(["grid", "random", "tpe"]), default="grid", show_default=True,
    help="grid: every combination in order; random, tpe (Optuna's): --trials of them.",
)  # fmt: skip
@click.option("--trials", type=click.IntRange(1), metavar="N", help="Runs to draw; of a grid all are run.")
@click.option(
    "--metric", default="validation/loss", show_default=True, metavar="NAME",
    help="What the runs are judged by: validation/NAME, an evaluation's or a training metric's name.",
)  # fmt: skip
@click.option(
    "--mode",
    type=click.Choice(["min", "max"]),
    help="Which direction is better; known for losses, accuracies ...",
)
@click.option("--resume", is_flag=True, help="Go on with the newest unfinished sweep of the same settings.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as json on standard output.")
def command(
    sampler: Any, trials: int | None, metric: str, mode: Any, resume: bool, as_json: bool, **layers: Any
) -> None:
    """Train one run for each combination of settings and say which was best.

    KEY=A,B,C is swept over its values, KEY=LOW..HIGH and KEY=log(LOW..HIGH) over a range (random, tpe); a
    value with commas of its own stands in quotes or brackets. The runs are children of one MLflow run, and
    llmfw compare SWEEP puts them side by side.

    \b
    llmfw sweep optimizer.lr=1e-5,3e-5,1e-4 seed=1,2,3
    llmfw sweep --sampler tpe --trials 20 optimizer.lr=log(1e-6..1e-4) adapter.r=4..64
    """
    words = layers.pop("overrides")
    from llmfw.core.settings.swept import split_swept

    split_swept(words)  # a mistyped word is told before anything heavy is imported
    from llmfw.core.sweep.run import sweep

    result = sweep(words, sampler=sampler, trials=trials, metric=metric, mode=mode, resume=resume, **layers)
    if as_json:
        click.echo(as_text(result))
    else:
        _print(result)


def as_text(result: SweepResult) -> str:
    """The result as json."""
    import json
    from dataclasses import asdict

    return json.dumps(asdict(result), indent=2, default=str)


def _print(result: SweepResult) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(soft_wrap=True)
    title = f"{result.metric}, {'lowest' if result.mode == 'min' else 'highest'} first"
    table = Table(title=title, title_justify="left", show_edge=False)
    keys = list(result.trials[0].settings)
    for name in ("run", *keys):
        table.add_column(Text(name), no_wrap=True)
    for name in (result.metric, "95% interval", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    for trial in _ordered(result):
        interval = "" if trial.low is None or trial.high is None else f"{trial.low:.4g} to {trial.high:.4g}"
        value = f"{trial.value:.6g}" if trial.value is not None else trial.status.lower()
        table.add_row(
            f"{trial.number:03d}", *(Text(trial.settings[key]) for key in keys), value, interval,
            f"{trial.seconds:.0f}",
        )  # fmt: skip
    console.print(table)
    assert result.best is not None
    console.print(Text(f"sweep    {result.dir}"))
    console.print(Text(f"best     {result.best.dir}"))
    if result.mlflow.get("run_id"):
        console.print(Text(f"mlflow   {result.mlflow['run_id']} in {result.mlflow.get('uri', '')}"))
    console.print("next:")
    for line in (f"llmfw compare {result.dir}", f"llmfw evaluate model={result.best.dir}"):
        console.print(Text(f"  {line}"))


def _ordered(result: SweepResult) -> list[Trial]:
    sign = 1 if result.mode == "min" else -1
    return sorted(
        result.trials,
        key=lambda trial: (trial.value is None, sign * trial.value if trial.value is not None else 0),
    )
