"""``llmfw sync``: tell MLflow what it missed while it was down, slow or locked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from llmfw.verbs.compare import complete_runs

if TYPE_CHECKING:
    from llmfw.core.tracking import RunRecord


@click.command("sync")
@click.argument("runs", nargs=-1, metavar="[RUN]...", shell_complete=complete_runs)
@click.option("--uri", help="MLflow tracking URI; default: the one that the run was meant for.")
@click.option("--experiment", metavar="NAME", help="MLflow experiment; default: the run's own.")
def command(runs: tuple[str, ...], uri: str | None, experiment: str | None) -> None:
    """Send what MLflow hasn't got of runs that have ended; every value arrives once.

    RUN is a folder, its name under runs/, or a run's name or id. Without any: all runs under runs/ that were
    to be tracked.
    """
    from llmfw.core.tracking import find_run, sync_run

    chosen = [find_run(name) for name in runs] if runs else _waiting()
    if not chosen:
        click.echo("MLflow has everything.")
    for record in chosen:
        for part in [record, *_rounds(record)]:
            sent = sync_run(part.dir, uri, experiment)
            click.echo(f"{part.dir}: {f'{sent} items sent' if sent else 'nothing was missing'}")


def _waiting() -> list[RunRecord]:
    """Runs that have ended, were meant for MLflow, and aren't there whole; oldest first."""
    from llmfw.core.tracking import list_runs, unsent

    return [
        record
        for record in reversed(list_runs())
        if record.status != "RUNNING"
        and record.mlflow
        and any(unsent(part.dir, part.status) for part in (record, *_rounds(record)))
    ]


def _rounds(record: RunRecord) -> list[RunRecord]:
    """The rounds of a run, in their order."""
    from llmfw.core.tracking import list_runs

    return sorted(list_runs(record.dir / "rounds"), key=lambda inner: inner.created)
