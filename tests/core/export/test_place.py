"""Where an export may go."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from llmfw.core.errors import ResourceError, UsageError
from llmfw.core.export.place import RECORD, check_space, check_target, disk, settle_files
from llmfw.core.models.saved_weights import SavedWeights

NOWHERE = SavedWeights(name="tiny-llama")


def _run(tmp_path: Path) -> SavedWeights:
    folder = tmp_path / "runs" / "one" / "final"
    folder.mkdir(parents=True)
    return SavedWeights(name=str(folder), folder=folder, run=folder.parent)


@pytest.mark.parametrize("where", [".", "runs", "runs/one", "runs/one/final", "runs/one/final/inside"])
def test_a_place_over_or_inside_the_source_is_refused_even_with_overwrite(where: str, tmp_path: Path):
    found = _run(tmp_path)
    with pytest.raises(UsageError, match="EXPORT-OUT"):
        check_target(tmp_path / where, True, found)


def test_a_new_folder_an_empty_one_and_one_beside_the_weights_are_fine(tmp_path: Path):
    found = _run(tmp_path)
    (tmp_path / "empty").mkdir()
    for where in ("new", "deep/er/new", "empty", "runs/one/exported"):
        check_target(tmp_path / where, False, found)
    assert not (tmp_path / "deep").exists()


def test_a_link_to_the_source_is_seen_through(tmp_path: Path):
    found = _run(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "runs" / "one")
    with pytest.raises(UsageError, match="source itself"):
        check_target(tmp_path / "link", True, found)


def test_only_an_earlier_export_is_replaced(tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="something else than an export"):
        check_target(out, True, NOWHERE)
    (out / RECORD).write_text("{}")
    check_target(out, True, NOWHERE)
    with pytest.raises(UsageError, match="add --overwrite"):
        check_target(out, False, NOWHERE)


def test_a_file_and_a_place_below_one_are_refused(tmp_path: Path):
    file = tmp_path / "file"
    file.write_text("")
    for place in (file, file / "below"):
        with pytest.raises(UsageError, match="EXPORT-OUT"):
            check_target(place, True, NOWHERE)


def test_too_little_space_is_told_with_both_numbers(tmp_path: Path):
    with pytest.raises(ResourceError, match=r"need 1000000\d\d\d MB, \d+ MB free"):
        check_space(tmp_path / "not" / "yet", 10**15)


def test_a_disk_that_runs_full_is_one_line_and_other_errors_stay_what_they_are(tmp_path: Path):
    with pytest.raises(ResourceError, match="DISK-FULL"), disk(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(ResourceError, match="DISK-FULL"), disk(tmp_path / "out"):
        raise RuntimeError("I/O error: No space left on device (os error 28)")
    with pytest.raises(KeyError), disk(tmp_path / "out"):
        raise KeyError("other")


def test_files_can_be_read_by_whom_the_umask_lets(tmp_path: Path):
    (tmp_path / "base").mkdir(mode=0o700)
    file = tmp_path / "base" / "model.safetensors"
    file.write_text("")
    file.chmod(0o600)
    before = os.umask(0o022)
    try:
        settle_files(tmp_path)
    finally:
        os.umask(before)
    assert file.stat().st_mode & 0o777 == 0o644 and file.parent.stat().st_mode & 0o777 == 0o755
