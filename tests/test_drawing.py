"""Draws by a commit's hash: the same for one commit, others for others, in the end all; or what is asked."""

from __future__ import annotations

import pytest

from tests.drawing import asked_or_drawn, commit, drawn

NAMES = ["a", "b", "c", "d", "e", "f"]


def test_a_commit_draws_the_same_and_commits_draw_differently_until_all_are_drawn() -> None:
    draws = [tuple(drawn(NAMES, 2, f"commit {number}")) for number in range(50)]
    assert drawn(NAMES, 2, "commit 7") == list(draws[7])
    assert all(len(set(one)) == 2 for one in draws)
    assert len(set(draws)) > 20 and {name for one in draws for name in one} == set(NAMES)


def test_names_that_are_asked_for_take_the_place_of_the_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLMFW_SOME", raising=False)
    assert asked_or_drawn(NAMES, 1, "LLMFW_SOME") == drawn(NAMES, 1, commit())
    monkeypatch.setenv("LLMFW_SOME", "all")
    assert asked_or_drawn(NAMES, 1, "LLMFW_SOME") == NAMES
    monkeypatch.setenv("LLMFW_SOME", "c,e")
    assert asked_or_drawn(NAMES, 1, "LLMFW_SOME") == ["c", "e"]
