"""docs/verbs.md: every verb with what ``--help`` prints."""

from __future__ import annotations

import os

import click

from llmfw.cli import cli
from llmfw.verbs import ALIASES, VERBS

INTRO = """\
# Verbs

What `llmfw VERB --help` prints, verb by verb. `KEY=VALUE` stands for any setting: `llmfw config --keys` lists
them, and so does [configuration](configuration.md). Plugins may bring a verb of their own; `llmfw --help`
lists those as well. `llmfw --version` prints the version, and `--debug` behind any verb shows tracebacks.
"""


def verbs_page() -> str:
    """All verbs of the core, in the order of ``llmfw --help``."""
    parts = [INTRO]
    context = click.Context(cli, info_name="llmfw")
    for title, verbs in VERBS.items():
        parts.append(f"## {title}")
        for verb in verbs:
            alias = next((alias for alias, name in ALIASES.items() if name == verb), None)
            also = f"\n\nAlso `llmfw {alias}`." if alias else ""
            parts.append(f"### llmfw {verb}{also}\n\n{_helps(cli.get_command(context, verb), verb, context)}")
    return "\n\n".join(parts) + "\n"


def _helps(command: click.Command | None, name: str, parent: click.Context) -> str:
    """The help of a verb, and of its own verbs."""
    assert command is not None, name
    context = click.Context(command, info_name=name, parent=parent, terminal_width=100, max_content_width=100)
    told = [f"```text\n{_plain(command.get_help(context))}\n```"]
    if isinstance(command, click.Group):
        told += [_helps(inner, inner_name, context) for inner_name, inner in command.commands.items()]
    return "\n\n".join(told)


def _plain(text: str) -> str:
    """Without what depends on who asks: the home folder."""
    return text.replace(os.path.expanduser("~"), "~").rstrip()
