"""docs/tested/: every noted case still has its test, and the page shows each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.architecture.conftest import ROOT
from tests.tested.recorder import AREAS, FOLDER

FILES = sorted(FOLDER.glob("*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_noted_case_has_its_test(path: Path):
    assert path.stem in AREAS
    for case, entry in json.loads(path.read_text(encoding="utf-8")).items():
        file, _, function = entry["test"].partition("::")
        name = function.partition("[")[0]
        assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), f"{case}: {entry['test']} is gone"


def test_a_noted_figure_keeps_its_bound():
    for path in FILES:
        for case, entry in json.loads(path.read_text(encoding="utf-8")).items():
            if entry.get("bound") is not None:
                assert entry["value"] <= entry["bound"], f"{path.stem}: {case}"
