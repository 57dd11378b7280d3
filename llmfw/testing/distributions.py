"""Plugins from source text: real distributions with entry points, installed for the length of a block."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from llmfw.core import discovery


def write_plugin(
    site: Path,
    name: str,
    source: str,
    *,
    card: str | None = "",
    overlay: str | None = None,
    files: Mapping[str, str] | None = None,
    attribute: str = "Toy",
    version: str = "1.0",
) -> Path:
    """Write a distribution ``toy-NAME`` into the folder ``site``; gives the folder of its package
    ``toy_NAME``.

    Args:
        source: the text of ``plugin.py``.
        card: what ``card.toml`` says beyond name and summary, or the whole card where it says a name itself;
            None: a one-file plugin without a card.
        overlay: the text of ``config.yaml``.
        files: further files of the package, name -> text (``functional.py``, ``README.md`` ...).
        attribute: name of the plugin's class.
    """
    package = site / f"toy_{name}"
    package.mkdir(parents=True, exist_ok=True)
    texts = {"__init__.py": "", "plugin.py": source, **(files or {})}
    if card is not None:
        card = textwrap.dedent(card)
        whole = any(line.startswith("name ") for line in card.splitlines())
        texts["card.toml"] = card if whole else f'name = "{name}"\nsummary = "a toy"\n{card}'
    if overlay is not None:
        texts["config.yaml"] = overlay
    for file, text in texts.items():
        (package / file).write_text(textwrap.dedent(text), encoding="utf-8")
    info = site / f"toy_{name}-{version}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: toy-{name}\nVersion: {version}\nSummary: a toy\n"
    )
    (info / "entry_points.txt").write_text(f"[{discovery.GROUP}]\n{name} = toy_{name}.plugin:{attribute}\n")
    return package


@contextmanager
def installed(site: Path) -> Iterator[None]:
    """The distributions of ``site`` are installed inside the block, and gone after it, their modules too.

    What is written into ``site`` inside the block is seen after ``llmfw.core.discovery.forget()``.
    """
    site = site.absolute()
    site.mkdir(parents=True, exist_ok=True)
    sys.path.insert(0, str(site))
    look_again()
    try:
        yield
    finally:
        sys.path.remove(str(site))
        for name in [name for name, module in list(sys.modules.items()) if _of(module, site)]:
            del sys.modules[name]
        look_again()


def look_again() -> None:
    """See distributions that were written or removed just now."""
    importlib.invalidate_caches()
    discovery.forget()


def _of(module: object, site: Path) -> bool:
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and Path(file).is_relative_to(site)
