"""``llmfw compare``: runs side by side, as tables in the terminal and as a page with curves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from llmfw.core.tracking.comparison import Comparison

REPORT = Path("runs/report.html")


def complete_runs(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
    """Folders of runs, newest first, with their status."""
    from click.shell_completion import CompletionItem

    from llmfw.core.tracking import list_runs

    return [
        CompletionItem(record.dir.name, help=f"{record.status} {record.created[:16]}")
        for record in list_runs()
        if record.dir.name.startswith(incomplete)
    ]


@click.command("compare")
@click.argument("runs", nargs=-1, metavar="[RUN]...", shell_complete=complete_runs)
@click.option("--experiment", metavar="NAME", help="The newest runs of this MLflow experiment.")
@click.option(
    "--last",
    type=click.IntRange(1, 20),
    metavar="N",
    help="The newest N runs, whatever their model and data.",
)
@click.option(
    "--baseline",
    metavar="RUN",
    shell_complete=complete_runs,
    help="The run that differences refer to; default: the oldest, of an ablation the one without.",
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    help="Show this metric; * and ? match; may be repeated.",
)
@click.option("--all", "everything", is_flag=True, help="Show every metric, not only the telling ones.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    default=REPORT,
    show_default=True,
    metavar="FILE",
    help="Where the page with curves goes.",
)
@click.option("--no-report", is_flag=True, help="Write no page.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print everything as json, and write no page unless --report is given.",
)
@click.pass_context
def command(
    context: click.Context,
    runs: tuple[str, ...],
    experiment: str | None,
    last: int | None,
    baseline: str | None,
    metrics: tuple[str, ...],
    everything: bool,
    report: Path,
    no_report: bool,
    as_json: bool,
) -> None:
    """Put runs side by side: settings, versions, metrics, curves.

    RUN is a folder, its name under runs/, a run's name or id, or an MLflow run id (or the start of one of
    these); a sweep, an ablation or claims that were run again stand for their runs. Without any: the newest
    five runs that began with the same model and data as the newest of all.
    """
    from llmfw.core.tracking.comparison import compare
    from llmfw.core.tracking.pick import named_run, natural_baseline, pick_runs

    records, left_out = pick_runs(runs, experiment=experiment, last=last)
    found = compare(records, named_run(baseline) if baseline else natural_baseline(runs))
    asked_for = context.get_parameter_source("report") is not click.core.ParameterSource.DEFAULT
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2, allow_nan=False))
    else:
        _print(found, metrics, everything)
        if left_out:
            click.echo(left_out)
    if not no_report and (asked_for or not as_json):
        _write(found, report)
        click.echo(f"report: {report.absolute().as_uri()}", err=as_json)


def _print(found: Comparison, wanted: tuple[str, ...], everything: bool) -> None:
    import sys

    from rich.console import Console

    from llmfw.core.errors import UsageError
    from llmfw.core.tracking.terminal import chosen, tables

    shown = chosen(found, wanted, everything=everything)
    if wanted and not shown:
        from difflib import get_close_matches

        names = [metric.name for metric in found.metrics]
        near = get_close_matches(wanted[0], names, n=3, cutoff=0.3) or names[:3]
        raise UsageError(
            "METRIC",
            f"no run has a metric {wanted[0]!r}",
            mend=f"did you mean {', '.join(near)}?" if near else "see --all",
        )
    # a pipe or a file has no width of its own
    console = Console() if sys.stdout.isatty() else Console(width=max(160, Console().width))
    for part in tables(found, shown):
        console.print(part)
    hidden = len(found.metrics) - len(shown)
    if hidden and not wanted:
        click.echo(f"{hidden} more metrics: --all, or --metric NAME")


def _write(found: Comparison, path: Path) -> None:
    from llmfw.core.errors import UsageError
    from llmfw.core.tracking.report import write_report

    try:
        write_report(found, path)
    except OSError as error:
        raise UsageError(
            "REPORT",
            f"the report can't be written ({error.strerror})",
            file=path,
            mend="name another file with --report, or add --no-report",
        ) from error
