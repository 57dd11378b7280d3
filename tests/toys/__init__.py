"""Toy plugins, one per hook: real packages with entry points, put on sys.path for the length of a test."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llmfw.core import discovery


def write_toy(
    site: Path, name: str, source: str, *, card: str | None = "", overlay: str | None = None
) -> None:
    """A distribution ``toy-NAME`` in the folder ``site``: package, entry point, card (None: a one-file
    plugin), overlay.
    """
    package = site / f"toy_{name}"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text("")
    (package / "plugin.py").write_text(textwrap.dedent(source))
    if card is not None:
        (package / "card.toml").write_text(f'name = "{name}"\nsummary = "a toy"\n' + textwrap.dedent(card))
    if overlay is not None:
        (package / "config.yaml").write_text(textwrap.dedent(overlay))
    info = site / f"toy_{name}-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: toy-{name}\nVersion: 1.0\nSummary: a toy\n")
    (info / "entry_points.txt").write_text(f"[llmfw.plugins]\n{name} = toy_{name}.plugin:Toy\n")


@contextmanager
def installed(site: Path) -> Iterator[None]:
    """The toys of ``site`` are installed inside the block, and gone after it."""
    sys.path.insert(0, str(site))
    discovery.forget()
    try:
        yield
    finally:
        sys.path.remove(str(site))
        for module in [module for module in sys.modules if module.startswith("toy_")]:
            del sys.modules[module]
        discovery.forget()
