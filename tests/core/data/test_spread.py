"""How records lie over problems and levels, worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmfw.core.data.spread import gini, spread


def test_coverage_shares_and_distance_by_hand():
    """Four problems, two a level. Records: a three, c one. Coverage 2/4; shares 3/4 and 1/4 against 1/2 and
    1/2: distance 1/4 + 1/4. Gini of 0 0 1 3: (2 (3*1 + 4*3)) / (4*4) - 5/4 = 30/16 - 20/16 = 0.625.
    """
    rows = [{"id": name, "level": level} for name, level in (("a", 1), ("b", 1), ("c", 2), ("d", 2))]
    numbers, tables = spread(rows, [{"problem": "a"}] * 3 + [{"problem": "c"}])
    assert numbers == {
        "records": 4, "problems": 2, "coverage": 0.5, "gini": pytest.approx(0.625),
        "level/1/share": 0.75, "level/1/coverage": 0.5,
        "level/2/share": 0.25, "level/2/coverage": 0.5,
        "level/distance": 0.5,
    }  # fmt: skip
    assert tables["kept"] == [
        {"level": "1", "records": 0, "problems": 1}, {"level": "1", "records": 3, "problems": 1},
        {"level": "2", "records": 0, "problems": 1}, {"level": "2", "records": 1, "problems": 1},
    ]  # fmt: skip


def test_levels_stand_by_their_size_and_words_behind_them():
    rows = [{"id": str(level), "level": level} for level in (10, 9, "hard")]
    _, tables = spread(rows, [{"problem": "9"}])
    assert [row["level"] for row in tables["kept"]] == ["9", "10", "hard"]


def test_records_that_name_no_row_are_counted_apart():
    """Two of four records answer the one problem of level 1, the others nothing: all of those that do."""
    rows = [{"id": "a", "level": 1}, {"id": "b", "level": 2}]
    records = [{"problem": "a"}, {"problem": "a"}, {"prompt": "p"}, {"problem": None}, {"problem": "z"}]
    numbers, _ = spread(rows, records)
    assert (numbers["records"], numbers["unnamed"], numbers["problems"]) == (5, 3, 1)
    assert numbers["coverage"] == 0.5 and numbers["level/1/share"] == 1.0 and numbers["level/2/share"] == 0.0
    assert numbers["level/distance"] == 1.0 and numbers["gini"] == pytest.approx(0.5)
    assert spread([{"id": "None"}], [{"problem": None}]) == ({}, {})


def test_nothing_is_said_of_records_that_name_no_row():
    assert spread([{"id": "a"}], [{"problem": "b"}]) == ({}, {})
    assert spread([{"id": "a"}], [{"prompt": "p"}]) == ({}, {})
    assert spread([], []) == ({}, {})


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8))
def test_gini_is_the_mean_difference_over_all_pairs(counts: list[int]):
    total, n = sum(counts), len(counts)
    pairs = sum(abs(one - other) for one in counts for other in counts)
    assert gini(counts) == pytest.approx(pairs / (2 * n * total) if total else 0.0, abs=1e-12)
