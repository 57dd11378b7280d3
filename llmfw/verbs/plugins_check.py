"""``llmfw plugins check``: hold plugins against the laws of their kinds."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING, Any, TextIO

import click

from llmfw.verbs.options import complete_plugins

if TYPE_CHECKING:
    from llmfw.testing.check import Outcome
    from llmfw.testing.laws import Law


def _complete_laws(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
    from click.shell_completion import CompletionItem

    from llmfw.testing.laws import laws

    found = [law for law in laws() if law.id.startswith(incomplete)]
    return [CompletionItem(law.id, help=law.statement) for law in found]


@click.command("check")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=complete_plugins)
@click.option("--all", "every", is_flag=True, help="Every installed plugin.")
@click.option(
    "--law", "only", multiple=True, metavar="ID", shell_complete=_complete_laws,
    help="Check this law alone; repeatable.",
)  # fmt: skip
@click.option("--list", "listing", is_flag=True, help="List the laws of these plugins' kinds (or all laws).")
@click.option("--json", "as_json", is_flag=True, help="Print the outcomes as json.")
@click.option("--verbose", "-v", is_flag=True, help="State every law, and show what its runs say.")
def check_command(
    names: tuple[str, ...], every: bool, only: tuple[str, ...], listing: bool, as_json: bool, verbose: bool
) -> None:
    """Hold plugins against the laws of their kinds: small real runs on a tiny model, no download.

    A law is passed, failed, skipped (it has nothing to look at, and says why) or exempt (the card says why).
    Exit code 4 where one fails, or where an exemption no longer holds.
    """
    from llmfw.core.errors import PluginError, UsageError
    from llmfw.testing.check import something_to_hold

    if listing:
        return _list(names, as_json)
    if bool(names) == every:
        raise UsageError(
            "USAGE", "which plugins are to be checked isn't said", mend="name some, or give --all"
        )
    chosen = _installed() if every else list(dict.fromkeys(names))
    found = [outcome for name in chosen for outcome in _check(name, only, as_json, verbose)]
    something_to_hold(found, only)
    if as_json:
        from dataclasses import asdict

        click.echo(json.dumps([asdict(outcome) for outcome in found], indent=2))
    bad = [outcome for outcome in found if not outcome.good]
    if bad:
        several = len(chosen) > 1
        told = ", ".join(f"{one.plugin}: {one.law}" if several else one.law for one in bad)
        who = f"{len({one.plugin for one in bad})} of {len(chosen)} plugins" if several else repr(chosen[0])
        held = sum(one.status != "skipped" for one in found)
        raise PluginError(
            "LAWS-BROKEN",
            f"{who} broke {len(bad)} of {held} laws: {told}",
            mend="mend what the messages above say, or exempt the plugin in its card's [conformance.xfail], "
            "with the reason",
        )
    return None


def _installed() -> list[str]:
    from llmfw.core.discovery import broken_cards, cards

    for error in broken_cards().values():
        raise error
    return list(cards())


def _check(name: str, only: Sequence[str], as_json: bool, verbose: bool) -> list[Outcome]:
    """A row for each law, as it comes."""
    from llmfw.core.discovery import card
    from llmfw.testing.check import check_plugin
    from llmfw.testing.laws import laws

    out = sys.stdout
    width = max(len(law.id) for law in laws())

    def told(outcome: Outcome) -> None:
        if as_json:
            return
        row = f"{outcome.law:<{width}}  {outcome.status:<8}  {outcome.seconds:5.1f} s"
        click.echo(f"{row}  {outcome.message}".rstrip(), file=out)
        if verbose:
            click.echo(f"{'':<{width}}  {outcome.statement}", file=out)

    if not as_json:
        found = card(name)
        click.echo(f"{name} ({found.origin}): {', '.join(found.kinds) or 'kinds of its hooks'}", file=out)
        click.echo(f"{'law':<{width}}  {'status':<8}  {'time':>7}  message", file=out)
    outcomes = check_plugin(name, only=only, told=told, around=lambda law: _watched(law, name, verbose))
    if not as_json:
        click.echo(f"{_summary(outcomes)}\n", file=out)
    return outcomes


def _summary(outcomes: Sequence[Outcome]) -> str:
    count = {
        title: sum(outcome.status == title for outcome in outcomes)
        for title in ("passed", "failed", "exempt-but-passed", "exempt", "skipped")
    }
    parts = [f"{number} {title}" for title, number in count.items() if number]
    return f"{', '.join(parts) or 'no law'} in {sum(outcome.seconds for outcome in outcomes):.1f} s"


@contextmanager
def _watched(law: Law, name: str, verbose: bool) -> Iterator[None]:
    """Says on a terminal which law is at work; what its runs say is shown only where it was asked for."""
    if verbose:
        yield
        return
    terminal: TextIO | None = sys.stderr if sys.stderr.isatty() else None
    if terminal is not None:
        terminal.write(f"\r\033[K{name}: {law.id} ...")
        terminal.flush()
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            yield
    finally:
        if terminal is not None:
            terminal.write("\r\033[K")
            terminal.flush()


def _list(names: Sequence[str], as_json: bool) -> None:
    """Ids, kinds and statements; nothing is run."""
    from pathlib import Path

    from llmfw.testing.check import laws_for
    from llmfw.testing.laws import laws
    from llmfw.testing.subject import Subject

    wanted = {law.id for name in names for law in laws_for(Subject(name, Path()))}
    found = [law for law in laws() if not names or law.id in wanted]
    if as_json:
        rows = [{"id": law.id, "kinds": list(law.kinds), "statement": law.statement} for law in found]
        click.echo(json.dumps(rows, indent=2))
        return
    for law in found:
        click.echo(f"{law.id} ({', '.join(law.kinds) or 'every kind'}): {law.statement}")
