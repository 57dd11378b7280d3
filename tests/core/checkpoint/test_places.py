"""Checkpoints in two places: the newest that verifies counts, wherever it lies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from llmfw.core.checkpoint import Places, SafeCheckpointIO, spare_for, step_folder
from llmfw.core.errors import CheckpointError


def write(folder: Path, step: int) -> Path:
    path = step_folder(folder, step)
    SafeCheckpointIO().save_checkpoint({"global_step": step, "state_dict": {"w": torch.ones(2)}}, path)
    return path


def test_the_newest_of_both_places_is_taken(tmp_path: Path) -> None:
    places = Places(tmp_path / "own", tmp_path / "spare")
    assert places.newest() is None
    own = write(places.folder, 2)
    assert places.newest() == own
    spare = write(tmp_path / "spare", 3)
    assert places.newest() == spare
    later = write(places.folder, 4)
    assert places.newest() == later


def test_a_damaged_place_gives_way_to_the_other_aloud_and_is_an_error_alone(tmp_path: Path) -> None:
    places, said = Places(tmp_path / "own", tmp_path / "spare"), list[str]()
    (write(places.folder, 5) / "training.json").write_text("{}")
    with pytest.raises(CheckpointError, match="NO-GOOD-CHECKPOINT"):
        places.newest()
    spare = write(tmp_path / "spare", 3)
    assert places.newest(say=said.append) == spare
    assert any("NO-GOOD-CHECKPOINT" in line for line in said)


def test_a_spare_folder_is_a_runs_own_and_no_other_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    spare = spare_for("0123456789abcdef0123")
    assert spare == tmp_path / f"llmfw-{os.getuid()}-0123456789abcdef" != spare_for("f" * 32)
    found = write(spare, 1)
    assert Places(tmp_path / "own", spare).newest() == found
    monkeypatch.setattr("os.getuid", lambda: 12345)
    assert Places(tmp_path / "own", spare).newest() is None


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"<!DOCTYPE html>\n<html><body>404</body></html>", "web page"),
    ],
    ids=["empty", "lfs", "html"],
)
@pytest.mark.parametrize("name", ["training-weights.safetensors", "manifest.json"])
def test_what_stands_in_a_files_place_is_recognised(
    tmp_path: Path, name: str, content: bytes, word: str
) -> None:
    good = write(tmp_path, 1)
    (write(tmp_path, 2) / name).write_bytes(content)
    said: list[str] = []
    assert Places(tmp_path).newest(say=said.append) == good
    assert (
        len(said) == 1 and "step-00000002" in said[0] and word in said[0] and "using step-00000001" in said[0]
    )
