"""``llmfw reproduce``: being built."""

from __future__ import annotations

import click


@click.command("reproduce")
def command() -> None:
    """Being built."""
