"""The user's cache: built once, whole or absent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from llmfw.core.cache import cache_dir, cached_json, locked_build
from llmfw.core.errors import UsageError


def _build_slowly(target: str, log: str, delay: float) -> None:
    def build(folder: Path) -> None:
        with open(log, "a") as handle:
            handle.write("built\n")
        (folder / "part").write_text("half")
        time.sleep(delay)
        (folder / "part").write_text("whole")

    assert (locked_build(Path(target), build) / "part").read_text() == "whole"


def _spawn(*arguments: object) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=_build_slowly, args=arguments)
    process.start()
    return process


def test_the_cache_lies_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMFW_CACHE", str(tmp_path / "own"))
    assert cache_dir("models") == tmp_path / "own" / "models"
    monkeypatch.delenv("LLMFW_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir("tokens") == tmp_path / "xdg" / "llmfw" / "tokens"
    assert (tmp_path / "xdg" / "llmfw" / "tokens").is_dir()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_dir("x") == tmp_path / "home" / ".cache" / "llmfw" / "x"


def test_a_cache_that_is_a_file_is_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LLMFW_CACHE", str(tmp_path / "file"))
    with pytest.raises(UsageError, match="set LLMFW_CACHE"):
        cache_dir("models")


def test_eight_processes_build_once_and_all_see_the_whole(tmp_path: Path) -> None:
    target, log = tmp_path / "thing", tmp_path / "log"
    processes = [_spawn(str(target), str(log), 0.2) for _ in range(8)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 8
    assert log.read_text() == "built\n"


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "part").touch()
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        locked_build(tmp_path / "thing", fail)
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == []


def test_what_a_killed_builder_left_is_swept_by_the_next(tmp_path: Path) -> None:
    target, log = tmp_path / "thing", tmp_path / "log"
    victim = _spawn(str(target), str(log), 60.0)
    while not list(tmp_path.glob(".staging-*/part")):
        time.sleep(0.01)
    os.kill(victim.pid or 0, signal.SIGKILL)
    victim.join()
    assert list(tmp_path.glob(".staging-*")) and not target.exists()
    _build_slowly(str(target), str(log), 0.0)
    assert list(tmp_path.glob(".staging-*")) == []


def test_json_is_made_once_and_anew_when_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMFW_CACHE", str(tmp_path))
    made: list[int] = []

    def make() -> dict[str, list[int]]:
        made.append(1)
        return {"made": list(made)}

    assert cached_json("rows", "key", make) == cached_json("rows", "key", make) == {"made": [1]}
    (tmp_path / "rows" / "key" / "value.json").write_text('{"made": [')
    assert cached_json("rows", "key", make) == {"made": [1, 1]}
