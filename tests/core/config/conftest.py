"""Toy plugins that are installed for the length of a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.core.config.helpers import SOURCE, STRICT
from tests.toys import installed, write_toy


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    """Toy plugins: ``first`` and ``second`` with overlays, ``strict`` with a setting that has no default."""
    folder = tmp_path / "site"
    common = "optimizer:\n  lr: {lr}\ntrainer:\n  {length}\n"
    write_toy(
        folder,
        "first",
        SOURCE,
        overlay=common.format(lr="1e-4", length="max_steps: 10") + "first:\n  alpha: 0.25\n",
    )
    write_toy(folder, "second", SOURCE, overlay=common.format(lr="2e-4", length="max_steps: 10"))
    write_toy(folder, "strict", STRICT)
    with installed(folder):
        yield folder
