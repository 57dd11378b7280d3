"""``llmfw reproduce``: a plugin's claims, run again; a verdict each."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from llmfw.core.errors import LlmfwError, UsageError
from llmfw.verbs.options import complete_plugins, complete_settings

if TYPE_CHECKING:
    from llmfw.core.claims import Size
    from llmfw.core.evidence.run import Reproduced


def _seeds(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...]:
    if value is None:
        return ()
    try:
        found = tuple(int(word) for word in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is no list of whole numbers, e.g. 1,2,3") from None
    if len(set(found)) < len(found) or min(found) < 0 or max(found) >= 2**31:
        raise click.BadParameter("seeds have to differ, and be from 0 to 2**31 - 1")
    return found


@click.command("reproduce")
@click.argument("name", required=False, shell_complete=complete_plugins)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...", shell_complete=complete_settings)
@click.option("--all", "every", is_flag=True, help="All installed plugins that state claims, one by one.")
@click.option(
    "--size", type=click.Choice(["smoke", "small", "full"]), default="small", show_default=True,
    help="smoke: seconds, shows that it runs; small: an hour of two cores; full: as the plugin says.",
)  # fmt: skip
@click.option("--claim", "claims", multiple=True, metavar="ID", help="Only this claim; repeatable.")
@click.option("--seeds", callback=_seeds, metavar="1,2,3", help="In place of those that the claims state.")
@click.option(
    "--add-seeds", type=click.IntRange(1), metavar="N",
    help="N seeds beyond those that are stated or in evidence.json.",
)  # fmt: skip
@click.option(
    "--resume", is_flag=True, help="Go on with the newest unfinished run of the same claims and code."
)
@click.option(
    "--file", "filed", is_flag=True,
    help="Put the result into the plugin's evidence.json and README; with --resume a finished run's, too.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the result as json on standard output.")
def command(
    name: str | None,
    overrides: tuple[str, ...],
    every: bool,
    size: Size,
    claims: tuple[str, ...],
    seeds: tuple[int, ...],
    add_seeds: int | None,
    resume: bool,
    filed: bool,
    as_json: bool,
) -> None:
    """Run a plugin's claims again: baseline, method and controls over seeds, and a verdict each.

    All runs are children of one MLflow run (none at size smoke). KEY=VALUE holds for every training. Whatever
    the verdicts, the exit code is 0; it isn't where an arm failed.

    \b
    llmfw reproduce NAME --size smoke
    llmfw reproduce NAME --file
    llmfw reproduce NAME --add-seeds 2 --file
    """
    if name is not None and "=" in name:
        overrides, name = (name, *overrides), None
    if (name is None) == (not every):
        raise UsageError("USAGE", "name one plugin, or say --all", mend="see llmfw reproduce --help")
    if seeds and add_seeds:
        raise UsageError("USAGE", "--seeds and --add-seeds say two things", mend="leave one of them out")
    if every and (claims or filed):
        raise UsageError("USAGE", "--claim and --file are for one plugin", mend="name it in place of --all")
    more = {"ids": claims, "seeds": seeds, "further": add_seeds or 0, "words": overrides}
    if every:
        _run_all(size, resume, as_json, more)
        return
    assert name is not None
    found = _run_one(name, size, resume, filed, more, show=not as_json)
    if as_json:
        click.echo(_as_text(found))


def _run_one(
    name: str, size: Size, resume: bool, filed: bool, more: dict[str, Any], show: bool
) -> Reproduced:
    """Run a plugin's claims, show what came out, and file it where that is wished."""
    from llmfw.core.evidence.document import read_evidence
    from llmfw.core.evidence.filing import check_place, file_evidence, filed_seeds
    from llmfw.core.evidence.run import finished, read_finished, run_claims
    from llmfw.core.evidence.schedule import make_schedule
    from llmfw.core.evidence.stated import read_claims

    stated = read_claims(name)
    if filed:
        check_place(stated, size)
    known = filed_seeds(read_evidence(stated.folder), size) if more["further"] else {}
    schedule = make_schedule(stated, size, filed=known, **more)
    done = finished(schedule) if resume and filed else None
    told = _print if show else (lambda found: None)
    if done is not None:
        found = read_finished(schedule, done.dir)
        told(found)
    else:
        found = run_claims(schedule, resume=resume, told=told)
    if filed:
        file, notes = file_evidence(stated, found.evidence, size)
        for note in notes:
            click.echo(f"note: {note}", err=True)
        click.echo(f"filed    {file}", err=True)
    return found


def _run_all(size: Size, resume: bool, as_json: bool, more: dict[str, Any]) -> None:
    from llmfw.core import discovery
    from llmfw.core.evidence.stated import states_claims

    results: list[Reproduced] = []
    failed: list[LlmfwError] = []
    silent = []
    for card in discovery.cards().values():
        if not states_claims(card):
            silent.append(card.name)
            continue
        try:
            results.append(_run_one(card.name, size, resume, False, more, show=not as_json))
        except LlmfwError as error:
            click.echo(str(error), err=True)
            failed.append(error)
    if as_json:
        click.echo(json.dumps([json.loads(_as_text(one)) for one in results], indent=2))
    if silent:
        click.echo(f"states no claims: {', '.join(silent)}", err=True)
    if failed:
        raise failed[0]


def _as_text(found: Reproduced) -> str:
    told = {"plugin": found.plugin, "dir": str(found.dir), "size": found.size, "verdicts": found.verdicts}
    return json.dumps({**told, "evidence": found.evidence}, indent=2)


def _print(found: Reproduced) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from llmfw.core.evidence import pages

    piped = not sys.stdout.isatty()
    console = Console(soft_wrap=piped, width=_WIDE if piped else None)
    table = Table(title=f"{found.plugin}, size {found.size}", title_justify="left", show_edge=False)
    for name in ("claim", "arm", "mean [95% interval]", "difference", "effect", "verdict"):
        table.add_column(name, no_wrap=name in ("claim", "mean [95% interval]", "effect"))
    for entry in found.evidence["claims"]:
        verdict = Text(entry["verdict"], style=_STYLES.get(entry["verdict"], ""))
        if not entry["arms"]:
            table.add_row(entry["id"], "", "", "", "", verdict, end_section=True)
        for n, (name, arm) in enumerate(entry["arms"].items()):
            judged, last = arm["role"] == "method", n + 1 == len(entry["arms"])
            table.add_row(
                entry["id"] if n == 0 else "", Text(f"{name} ({arm['role']})"), pages.interval(arm),
                pages.difference_of(entry, name), f"{entry['effect']:g} {entry['unit']}" if judged else "",
                verdict if judged else "", end_section=last,
            )  # fmt: skip
    console.print(table)
    for entry in found.evidence["claims"]:
        how = f"{entry['metric']}, {pages.rule(entry)}; {pages.count(entry)}. " if entry["arms"] else ""
        console.print(Text(f"{entry['id']}   {entry['statement']} ({how}The paper: {entry['paper']})"))
        console.print(Text(f"         {entry['verdict']}: {entry['why']}"))
    for _, name, cost in pages.costs(found.evidence):
        console.print(Text(f"cost     {name}: {pages.spoken_cost(cost)} a seed"))
    for line in found.failures:
        console.print(Text(f"failed   {line}"))
    console.print(Text(f"run      {found.dir}"))


_WIDE = 160
"""Columns of a table that goes into a file or a pipe."""
_STYLES = {"reproduced": "green", "opposite": "red", "failed": "bold red", "not reproduced": "yellow"}
