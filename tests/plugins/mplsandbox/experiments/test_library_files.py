"""Languages of other people's files: what is sampled, what is hidden, what is counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmfw import Workspace
from llmfw.testing import plugin_module

library_files = plugin_module("mplsandbox", "experiments.library_files")
languages = plugin_module("mplsandbox", "languages").languages


def test_all_places_are_of_languages_in_the_table() -> None:
    assert set(library_files.PLACES) <= set(languages())


def test_every_language_counts_alike(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two of three right and one of one right: (2/3 + 1) / 2 = 5/6."""
    texts = {"python": ["a", "a", "b"], "lua": ["c"]}
    made = {}
    for lang, lines in texts.items():
        made[lang] = tuple(tmp_path / f"{lang}{index}" for index in range(len(lines)))
        for path, line in zip(made[lang], lines, strict=True):
            path.write_text(f"#!/usr/bin/{lang}\n{line}", encoding="utf-8")
    monkeypatch.setattr(library_files, "files", lambda: made)
    said = {"a": "python", "b": "unknown", "c": "lua"}
    told = library_files._shares(Workspace(dir=tmp_path, seed=1, size="small"), lambda text: said[text])
    assert told == pytest.approx({"right": 5 / 6, "right/python": 2 / 3, "right/lua": 1.0})


def test_too_few_languages_on_a_machine_are_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(library_files, "PLACES", {"python": (f"{tmp_path}/*.py",)})
    (tmp_path / "a.py").write_text("x = 1\n" * 100, encoding="utf-8")
    with pytest.raises(RuntimeError, match="sources of 1 languages are installed, 3 are needed"):
        library_files.files.__wrapped__()
