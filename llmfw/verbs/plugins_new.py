"""``llmfw plugins new``: a package of one's own that installs, passes its tests, and waits for a method."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

KINDS = ("loss", "sampler", "datamodule", "transform", "surgery", "kv_cache", "decoder", "service")
"""The template's kinds; listed here, so that help imports nothing."""


@click.command("new")
@click.argument("name")
@click.option("--kind", type=click.Choice(KINDS), required=True, help="What the plugin brings.")
@click.option(
    "--into",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("."),
    show_default="here",
    help="Folder in which llmfw-NAME is made.",
)
@click.option("--author", default="Your Name", show_default=True, help="For pyproject.toml and the licence.")
def new_command(name: str, kind: str, into: Path, author: str) -> None:
    """Write a new plugin: a whole package, llmfw-NAME, with an example of its kind that works.

    It installs and passes its tests as it is; put your method in the place of the example's. Nothing that is
    there is overwritten. docs/write-a-plugin.md explains each part.
    """
    from llmfw.testing.render import write_package

    folder = write_package(name, kind, into, author=author)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    click.echo(f"{folder}: {len(files)} files")
    for file in files:
        click.echo(f"  {file}")
    click.echo("\nNext:")
    for command in next_commands(name, kind, folder):
        click.echo(f"  {command}")


def next_commands(name: str, kind: str, folder: Path) -> list[str]:
    """What to type after rendering."""
    use = {
        "kv_cache": f'llmfw generate --plugin {name} "The answer is"',
        "decoder": f'llmfw generate --plugin {name} "The answer is"',
        "service": f"llmfw plugins show {name}",
    }
    return [
        f"cd {shlex.quote(str(folder))}",
        "pip install -e '.[test]'",
        "pytest",
        f"llmfw plugins check {name}",
        use.get(kind, f"llmfw fit --plugin {name}"),
    ]
