"""``llmfw plugins``: what is installed, read from the cards; only ``show`` imports a plugin."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from llmfw.verbs.options import complete_plugins
from llmfw.verbs.plugins_check import check_command
from llmfw.verbs.plugins_new import new_command

if TYPE_CHECKING:
    from llmfw.core.discovery import Card


@click.group("plugins", invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """List the installed plugins, show or check one of them, or begin your own."""
    if context.invoked_subcommand is None:
        context.invoke(list_command)


command.add_command(new_command)
command.add_command(check_command)


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the cards as json.")
def list_command(as_json: bool = False) -> None:
    """A line for each installed plugin. No plugin is imported."""
    from llmfw.core.discovery import cards, unusable

    found = list(cards().values())
    if as_json:
        click.echo(json.dumps([as_dict(card) for card in found], indent=2))
    elif found:
        rows = [(card.name, ", ".join(card.kinds) or "-", card.origin, card.summary) for card in found]
        for line in columns(("plugin", "kinds", "from", "summary"), rows):
            click.echo(line)
        click.echo("\nllmfw plugins show NAME explains one; llmfw fit --plugin NAME trains with it.")
    else:
        click.echo("No plugin is installed.")
    for error in unusable().values():
        click.echo(f"warning: {error}", err=True)


@command.command("show")
@click.argument("name", shell_complete=complete_plugins)
@click.option("--json", "as_json", is_flag=True, help="Print the card as json.")
def show_command(name: str, as_json: bool) -> None:
    """A plugin's card, paper, settings, neutral setting and README."""
    from llmfw.core.discovery import card

    found = card(name)
    if as_json:
        click.echo(json.dumps(as_dict(found), indent=2))
        return
    for line in describe(found):
        click.echo(line)


def as_dict(card: Card) -> dict[str, Any]:
    """A card as json holds it."""
    from dataclasses import asdict

    return {**asdict(card), "folder": str(card.folder) if card.folder else None}


def columns(titles: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """A table in plain text, the last column as long as it likes."""
    widths = [max(len(row[index]) for row in [titles, *rows]) for index in range(len(titles))]
    for row in [titles, *rows]:
        yield "  ".join(word.ljust(width) for word, width in zip(row[:-1], widths)) + f"  {row[-1]}"


def describe(card: Card) -> Iterator[str]:
    """Everything there is to read about a plugin."""
    yield f"{card.name}: {card.summary}" if card.summary else card.name
    yield f"from {card.origin}, {card.value}"
    if card.kinds:
        yield f"kinds: {', '.join(card.kinds)}; verbs: {', '.join(card.verbs)}"
    for title, words in (("needs", card.needs), ("offers", card.offers), ("not with", card.conflicts_with)):
        if words:
            yield f"{title}: {', '.join(words)}"
    for verb, text in card.commands.items():
        yield f"brings the verb llmfw {verb}: {text}"
    if card.paper:
        yield ""
        yield from _paper(card)
    yield ""
    yield from _settings(card)
    if card.neutral:
        yield ""
        settings = card.neutral.get("settings", {})
        values = " ".join(f"{card.name}.{key}={json.dumps(value)}" for key, value in settings.items())
        equal = "exactly" if card.neutral.get("exact") else "within rounding"
        yield f"neutral setting: {values or 'none'} is {equal} {card.neutral.get('baseline', 'the baseline')}"
    readme = card.folder / "README.md" if card.folder else None
    if readme is not None and readme.is_file():
        yield ""
        yield readme.read_text(encoding="utf-8", errors="replace").rstrip()


def _paper(card: Card) -> Iterator[str]:
    paper = card.paper
    yield f"paper: {paper.get('title', 'untitled')}"
    authors = paper.get("authors", [])
    if authors:
        yield f"       {', '.join(authors) if isinstance(authors, list) else authors}"
    places = [str(paper["venue"])] if "venue" in paper else []
    places += [f"arXiv {paper['arxiv']}"] if "arxiv" in paper else []
    if places:
        yield f"       {', '.join(places)}"


def _settings(card: Card) -> Iterator[str]:
    from llmfw.core.discovery import load_class, overlay_path
    from llmfw.core.settings.keys import section
    from llmfw.verbs.config import describe_keys

    lines = list(describe_keys(section(load_class(card).Config, card.name)))
    yield "settings:" if lines else "settings: none of its own"
    for line in lines:
        yield f"  {card.name}.{line}" if not line.startswith(" ") else f"  {line}"
    overlay = overlay_path(card)
    if overlay is not None:
        yield ""
        yield "defaults that it brings (files and the command line win):"
        for line in overlay.read_text(encoding="utf-8", errors="replace").rstrip().splitlines():
            yield f"  {line}".rstrip()
