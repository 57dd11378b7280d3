"""``llmfw ablate``: being built."""

from __future__ import annotations

import click


@click.command("ablate")
def command() -> None:
    """Being built."""
