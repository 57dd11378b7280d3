"""The toys that mutants are made of keep every law of their kinds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.testing.base_toys import KINDS, mutant, outcomes


@pytest.mark.parametrize("kind", KINDS)
def test_a_well_behaved_toy_keeps_every_law(tmp_path: Path, kind: str):
    found = outcomes(tmp_path, mutant(tmp_path, kind))
    assert not {outcome.law: outcome.message for outcome in found.values() if not outcome.good}
    assert any(outcome.status == "passed" for outcome in found.values())


def test_a_mutant_differs_from_the_toy(tmp_path: Path):
    with pytest.raises(AssertionError, match="has no 'not there'"):
        mutant(tmp_path, "loss", plugin=("not there", "x"))
