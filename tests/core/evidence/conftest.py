"""An empty folder to run in, and a place for plugins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.toys import installed


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a cache of its own."""
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.setenv("LLMFW_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    """A folder whose plugins are installed for the length of the test."""
    place = tmp_path / "site"
    place.mkdir()
    with installed(place):
        yield place
