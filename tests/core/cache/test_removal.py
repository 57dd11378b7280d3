"""Removing: whole, under the entry's locks, and never outside the cache's folder."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import pytest
from filelock import FileLock

from llmfw.core.cache import cache_dir, locked_build
from llmfw.core.cache.entries import Entry, entries
from llmfw.core.cache.removal import remove
from llmfw.core.errors import BusyError, UsageError


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMFW_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def make(kind: str, name: str) -> Path:
    return locked_build(cache_dir(kind) / name, lambda folder: (folder / "file").write_text("1234") and None)


def only() -> Entry:
    (found,) = entries()
    return found


def test_it_is_gone_and_can_be_built_again() -> None:
    place = make("models", "one")
    assert remove(only()) == 4
    assert not place.exists() and entries() == []
    assert [path.name for path in place.parent.iterdir()] == [".one.lock"]
    assert make("models", "one") == place and len(entries()) == 1


def test_a_kind_of_small_files_goes_as_one() -> None:
    for number in range(3):
        (cache_dir("hashes") / f"{number}.json").write_text("12")
    assert remove(only()) == 6 and entries() == []


def hold(lock: str, ready: str) -> None:
    with FileLock(lock):
        Path(ready).touch()
        time.sleep(60)


@pytest.mark.kill
@pytest.mark.parametrize("lock", [".one.lock", "one.lock", "one/.lock", "one/.claims/x.lock"])
def test_what_another_process_builds_trains_or_fills_is_refused(lock: str, tmp_path: Path) -> None:
    place = make("reference", "one")
    (place / ".claims").mkdir()
    ready = tmp_path / "ready"
    arguments = (str(place.parent / lock), str(ready))
    other = multiprocessing.get_context("fork").Process(target=hold, args=arguments)
    other.start()
    try:
        while not ready.exists():
            time.sleep(0.01)
        with pytest.raises(BusyError, match=rf"CACHE-BUSY\] {place}: another process") as caught:
            remove(only())
        assert caught.value.exit_code == 9 and (place / "file").read_text() == "1234"
    finally:
        other.kill()
        other.join()
    remove(only())
    assert not place.exists()


def test_a_link_goes_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "weights").write_text("years")
    (cache_dir("models") / "link").symlink_to(tmp_path / "precious")
    place = make("models", "inside")
    (place / "link").symlink_to(tmp_path / "precious")
    for entry in entries():
        remove(entry)
    assert entries() == [] and (tmp_path / "precious" / "weights").read_text() == "years"


@pytest.mark.parametrize("place", ["outside/thing", "cache/thing", "cache/models/deep/thing", "link/thing"])
def test_nothing_outside_of_the_folders_of_kinds_is_touched(place: str, tmp_path: Path) -> None:
    make("models", "one")
    (tmp_path / "outside").mkdir()
    (tmp_path / "cache" / "link").symlink_to(tmp_path / "outside")
    thing = (tmp_path / "cache" / place) if place.startswith("link") else tmp_path / place
    thing.parent.mkdir(parents=True, exist_ok=True)
    thing.write_text("mine")
    forged = Entry(kind="x", name="x", paths=(thing,), about="", count=None, size=4, used=0)
    with pytest.raises(UsageError, match="CACHE-OUTSIDE"):
        remove(forged)
    assert thing.read_text() == "mine"


def test_what_a_killed_removal_left_goes_with_the_next() -> None:
    place = make("models", "one")
    (place.parent / ".removed-two-77").mkdir()
    remove(only())
    assert not (place.parent / ".removed-two-77").exists()
