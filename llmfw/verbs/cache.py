"""``llmfw cache``: what is kept in the user's cache, why a run finds it or not, and how it's removed."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from llmfw.verbs.cache_explain import explain_command

if TYPE_CHECKING:
    from llmfw.core.cache.entries import Entry


def complete_entries(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
    """Names of cached things, with what they belong to."""
    from click.shell_completion import CompletionItem

    from llmfw.core.cache.entries import entries

    found = [(name, entry.about) for entry in entries() for name in (entry.label, entry.name)]
    return [CompletionItem(name, help=about) for name, about in found if name.startswith(incomplete)]


@click.group("cache", invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """List what is cached, explain it, or remove it."""
    if context.invoked_subcommand is None:
        context.invoke(list_command)


command.add_command(explain_command)


@command.command("ls")
@click.option("--kind", metavar="KIND", help="Only one kind: reference, tokens, models ...")
@click.option("--json", "as_json", is_flag=True, help="Print json; sizes in bytes.")
def list_command(kind: str | None = None, as_json: bool = False) -> None:
    """A line for each cached thing: kind, name, size, when it was last used, what it belongs to."""
    from llmfw.core.cache import cache_root
    from llmfw.core.cache.entries import as_json as told
    from llmfw.core.cache.entries import entries, strangers
    from llmfw.verbs.costs import memory
    from llmfw.verbs.plugins import columns

    found = entries(kind)
    if as_json:
        click.echo(json.dumps([told(entry) for entry in found], indent=2))
        return
    for name, why in strangers().items():
        click.echo(f"note: {name} in {cache_root()} is left alone: {why}", err=True)
    if not found:
        click.echo(f"Nothing is cached in {cache_root()}.")
        return
    rows = [
        (entry.kind, entry.name, memory(entry.size / 2**30), ago(entry.used), entry.about) for entry in found
    ]
    for line in columns(("kind", "name", "size", "last used", "what"), rows):
        click.echo(line.rstrip())
    size = memory(sum(entry.size for entry in found) / 2**30)
    click.echo(f"\n{size} in {cache_root()}; llmfw cache explain NAME tells more, rm NAME removes.")


@command.command("rm")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=complete_entries)
@click.option("--kind", metavar="KIND", help="Everything of one kind.")
@click.option(
    "--unused-for", "days", type=click.FloatRange(min=0), metavar="DAYS",
    help="What wasn't used for so many days; with --kind of that kind.",
)  # fmt: skip
@click.option("--all", "everything", is_flag=True, help="Everything.")
@click.option("--yes", is_flag=True, help="Don't ask.")
def remove_command(
    names: tuple[str, ...], kind: str | None, days: float | None, everything: bool, yes: bool
) -> None:
    """Remove cached things; what is needed again is made again. Asks first.

    NAME as llmfw cache ls shows it, KIND/NAME, or its beginning.
    """
    from llmfw.core.cache.entries import entries, named
    from llmfw.core.cache.removal import remove
    from llmfw.core.errors import BusyError, UsageError
    from llmfw.verbs.costs import memory

    ways = [bool(names), kind is not None or days is not None, everything]
    if sum(ways) != 1:
        raise UsageError(
            "USAGE", "say what to remove" if not any(ways) else "names, filters and --all don't go together",
            mend="give NAME..., or --kind KIND and --unused-for DAYS, or --all",
        )  # fmt: skip
    chosen = named(names, entries()) if names else entries(kind)
    if days is not None:
        chosen = [entry for entry in chosen if entry.used < time.time() - days * 86400]
    if not chosen:
        click.echo("Nothing to remove.")
        return
    _confirm(chosen, yes)
    freed, busy = 0, []
    for entry in chosen:
        try:
            freed += remove(entry)
        except BusyError as error:
            busy.append(error)
    gone = len(chosen) - len(busy)
    if gone:
        click.echo(f"Removed {_things(gone)}: {memory(freed / 2**30)} freed.")
    for other in busy[1:]:
        click.echo(str(other), err=True)
    if busy:
        raise busy[0]


def _confirm(chosen: Sequence[Entry], yes: bool) -> None:
    """Ask, unless told not to.

    Raises:
        UsageError: CACHE-CONFIRM, where nobody can answer.
    """
    from llmfw.core.errors import UsageError
    from llmfw.verbs.costs import memory

    if yes:
        return
    size = memory(sum(entry.size for entry in chosen) / 2**30)
    what = _things(len(chosen)) if len(chosen) > 1 else f"{chosen[0].label} ({chosen[0].about or 'cached'})"
    if not sys.stdin.isatty():
        raise UsageError(
            "CACHE-CONFIRM", f"{what}, {size}, would be removed, and nobody is here to ask", mend="add --yes"
        )  # fmt: skip
    click.confirm(f"Remove {what}, {size}?", abort=True)


def ago(when: float) -> str:
    """How long ago, in the unit that suits it."""
    passed = max(0.0, time.time() - when)
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if passed >= length:
            count = int(passed // length)
            return f"{count} {unit}{'s' if count != 1 else ''} ago"
    return "just now"


def _things(count: int) -> str:
    return "1 cached thing" if count == 1 else f"{count} cached things"
