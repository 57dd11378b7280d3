"""Runs that the tests of exports share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llmfw
from tests.tested.exports import QUIET, Fit


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of this module's own, with rows and pairs."""
    folder = tmp_path_factory.mktemp("export")
    rows = [{"id": f"r{i}", "prompt": f"say {i}", "completion": f"it is {i}"} for i in range(30)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = [
        {"id": f"p{i}", "prompt": f"say {i}", "chosen": f"it is {i}", "rejected": f"no, it is {i + 1}"}
        for i in range(20)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def fit(place: Path) -> Fit:
    """Train a run of these settings once, and give its folder."""
    runs: dict[Any, Path] = {}

    def train(*settings: str, plugins: tuple[str, ...] = ()) -> Path:
        key = (settings, plugins)
        if key not in runs:
            name = f"run.dir={place / f'run{len(runs)}'}"
            runs[key] = llmfw.fit(*QUIET, *settings, name, plugins=plugins).dir
        return runs[key]

    return train


@pytest.fixture
def out(place: Path, tmp_path: Path) -> Path:
    return tmp_path / "exported"
