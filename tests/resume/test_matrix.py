"""Two cells of the kill matrix a commit; ``python -m tests.resume.matrix`` runs all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drawing import commit, drawn
from tests.resume.matrix import CELLS, Cell, trial
from tests.resume.trials import Warm

pytestmark = pytest.mark.kill


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    server = Warm()
    yield server
    server.close()


@pytest.mark.parametrize("cell", drawn(CELLS, 2, commit()), ids=lambda cell: cell.name)
def test_a_cell_drawn_by_the_commit_ends_as_the_run_that_was_not_killed(
    cell: Cell, warm: Warm, tmp_path: Path
) -> None:
    print(cell.name, cell.kills())
    found = trial(warm, cell, tmp_path)
    assert found["different"] == [] and found["kills"] >= 1


def test_the_matrix_has_every_combination_once() -> None:
    """2 accumulations x 2 endings x 2 kinds x 2 workers x 2 validations x 2 plugins = 64 cells."""
    assert len({cell.name for cell in CELLS}) == len(CELLS) == 64
