"""A file is the old one or the new one, whatever happens while it's written, and it's flushed before and
after its renaming.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmfw.core.disk import UNFINISHED, flush_below, replacing, write_whole


def test_a_file_takes_the_place_of_the_old_one_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "note.json"
    write_whole(target, b"old")
    with replacing(target) as file:
        file.write(b"new")
        (staged,) = tmp_path.glob(".note.json.*")
        assert staged.name.endswith(UNFINISHED) and target.read_bytes() == b"old"
    assert target.read_bytes() == b"new" and list(tmp_path.iterdir()) == [target]
    assert target.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_no_litter(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "note.json"
    write_whole(target, b"old")

    def fail() -> None:
        with replacing(target) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        fail()
    assert target.read_bytes() == b"old" and list(tmp_path.iterdir()) == [target]


def test_what_was_written_is_flushed_before_the_renaming_and_the_folder_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def kind(handle: int) -> str:
        return "folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file"

    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append(kind(handle)), fsync(handle))[1])
    monkeypatch.setattr(os, "replace", lambda one, to: (calls.append("rename"), replace(one, to))[1])
    write_whole(tmp_path / "note.json", b"new")
    assert calls == ["file", "rename", "folder"]


def test_all_below_a_folder_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "file").touch()
    seen: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda handle: seen.append(os.readlink(f"/proc/self/fd/{handle}")))
    flush_below(tmp_path)
    root = tmp_path.resolve()
    assert sorted(seen) == sorted(map(str, [root, root / "below", root / "below" / "file"]))
