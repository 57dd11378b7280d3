"""What lies in the cache: found, named, told of, and told apart from what isn't ours."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from llmfw.core.cache import cache_dir, cached_json, locked_build, mark_used
from llmfw.core.cache.entries import as_json, entries, named, read_key, size_of, strangers
from llmfw.core.errors import UsageError


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMFW_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def make(kind: str, name: str, text: str = "1234") -> Path:
    return locked_build(cache_dir(kind) / name, lambda folder: (folder / "file").write_text(text) and None)


def test_nothing_is_there_before_anything_is_made(root: Path) -> None:
    assert entries() == [] and strangers() == {} and not root.exists()


def test_entries_have_kind_name_size_and_time_the_last_used_first() -> None:
    """Locks and what a killed build left are no entries. 4 + 2 bytes of text."""
    old, new = make("models", "old-abc-2"), make("models", "new-def-2")
    (new / "more").write_text("12")
    (cache_dir("models") / ".staging-x-1").mkdir()
    os.utime(old, (1000, 1000))
    found = entries()
    sizes = {entry.label: entry.size for entry in found}
    assert list(sizes.items()) == [("models/new-def-2", 6), ("models/old-abc-2", 4)]
    assert found[1].used == 1000
    assert as_json(found[1])["used"] == "1970-01-01T00:16:40+00:00"
    assert json.loads(json.dumps(as_json(found[1])))["paths"] == [str(old)]


def test_to_find_a_thing_built_is_to_use_it() -> None:
    place = make("models", "a-b-2")
    os.utime(place, (1000, 1000))
    make("models", "a-b-2")
    assert place.stat().st_mtime > 1000
    value = cache_dir("rows") / "key"
    cached_json("rows", "key", lambda: 1)
    os.utime(value, (1000, 1000))
    assert cached_json("rows", "key", lambda: 2) == 1 and value.stat().st_mtime > 1000
    mark_used(Path("/nowhere/at/all"))  # others' caches may be read-only


def test_hashes_are_told_of_as_one() -> None:
    for number in range(3):
        (cache_dir("hashes") / f"{number}.json").write_text("12")
    (only,) = entries("hashes")
    assert (only.label, only.count, only.size) == ("hashes/all", 3, 6)
    assert only.about == "3 hashes of model files"


def test_a_name_its_label_or_the_beginning_of_one_thing() -> None:
    for name in ("tiny-a-2", "tiny-b-2", "other-c-2"):
        make("models", name)
    make("tokens", "tiny")
    among = entries()
    assert [entry.label for entry in named(["oth", "tokens/tiny", "models/tiny-b"], among)] == [
        "models/other-c-2", "tokens/tiny", "models/tiny-b-2",
    ]  # fmt: skip
    assert [entry.label for entry in named(["tiny"], among)] == ["tokens/tiny"]
    with pytest.raises(UsageError, match=r"CACHE-NAME.*'tiny-' means 2 .*models/tiny-.-2, models/tiny-.-2"):
        named(["tiny-"], among)
    with pytest.raises(UsageError, match=r"CACHE-NAME.*'tiny-a-3'; did you mean tiny-a-2"):
        named(["tiny-a-3"], among)
    for word in ("../models/tiny-a-2", "/", "", "."):
        with pytest.raises(UsageError, match="CACHE-NAME"):
            named([word], among)


def test_an_unknown_kind_has_near_names() -> None:
    make("models", "x")
    with pytest.raises(UsageError, match=r"CACHE-KIND.*'model'.*did you mean models"):
        entries("model")


def test_what_others_put_into_the_folder_is_left_alone(root: Path, tmp_path: Path) -> None:
    make("models", "ours")
    (root / "Documents").mkdir()
    (root / "Documents" / "thesis.txt").write_text("years")
    (root / "note.txt").write_text("mine")
    (tmp_path / "big").mkdir()
    (root / "tokens").symlink_to(tmp_path / "big")
    assert [entry.label for entry in entries()] == ["models/ours"]
    assert strangers() == {
        "Documents": "not made by llmfw", "note.txt": "not made by llmfw", "tokens": "a link",
    }  # fmt: skip


def test_a_folder_that_was_there_before_stays_its_owners(root: Path) -> None:
    (root / "data").mkdir(parents=True)
    (root / "data" / "rows.jsonl").write_text("{}")
    make("data", "package-123")
    assert strangers() == {"data": "not made by llmfw"} and entries() == []


def test_damage_is_told_and_stops_nothing() -> None:
    make("tokens", "bad")
    (cache_dir("reference") / "bad").mkdir()
    assert {entry.label: entry.about for entry in entries()} == {
        "reference/bad": "unreadable", "tokens/bad": "unreadable",
    }  # fmt: skip
    assert read_key(cache_dir("reference") / "bad") == ({}, {})


def test_what_a_link_leads_to_has_no_size_here(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(1000))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "big")
    (tmp_path / "folder" / "own").write_bytes(bytes(7))
    assert size_of(tmp_path / "folder") == 7
    assert size_of(tmp_path / "folder" / "link") == 0
