"""Which weights of a run are meant."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from llmfw.core.checkpoint.manifest import Manifest, file_digest
from llmfw.core.errors import CheckpointError, UsageError
from llmfw.core.models.saved_weights import find_weights


def _weights(folder: Path, step: int) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes([step]) * 8)
    files = {"model.safetensors": file_digest(folder / "model.safetensors")}
    (folder / "manifest.json").write_text(Manifest(step=step, files=files).to_json())
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A killed run with checkpoints of steps 4 and 8."""
    place = tmp_path / "runs" / "one"
    place.mkdir(parents=True)
    record = {"id": "1" * 32, "name": "one", "created": "2026-01-01T00:00:00+00:00", "status": "KILLED"}
    (place / "run.json").write_text(json.dumps(record))
    for step in (4, 8):
        _weights(place / "checkpoints" / f"step-{step:08d}", step)
    return place


def test_a_finished_run_gives_its_final_weights_without_a_word(run: Path):
    final = _weights(run / "final", 10)
    found = find_weights(str(run))
    assert (found.folder, found.run, found.step, found.note) == (final, run, 10, "")


def test_an_unfinished_run_gives_its_newest_checkpoint_and_says_so(run: Path):
    found = find_weights(str(run))
    assert found.step == 8 and "step 8" in found.note and "killed" in found.note


def test_a_damaged_newest_checkpoint_is_passed_over_and_that_is_logged(
    run: Path, caplog: pytest.LogCaptureFixture
):
    (run / "checkpoints" / "step-00000008" / "model.safetensors").write_bytes(b"x" * 8)
    with caplog.at_level(logging.WARNING):
        assert find_weights(str(run)).step == 4
    assert "passed over" in caplog.text


def test_a_step_names_its_checkpoint_also_beside_final_weights(run: Path):
    _weights(run / "final", 10)
    assert find_weights(str(run), 4).step == 4
    assert find_weights(str(run), 10).folder == run / "final"
    with pytest.raises(CheckpointError, match="4, 8, 10"):
        find_weights(str(run), 5)


def test_checkpoints_are_looked_for_where_the_run_kept_them(run: Path, tmp_path: Path):
    (run / "checkpoints").rename(tmp_path / "kept")
    (run / "plan.json").write_text(json.dumps({"settings": {"checkpoint.dir": str(tmp_path / "kept")}}))
    assert find_weights(str(run)).folder == tmp_path / "kept" / "step-00000008"


def test_a_run_in_rounds_gives_its_last_round(run: Path):
    for index in (0, 1):
        place = run / "rounds" / f"{index:03d}"
        _weights(place / "final", 3 + index)
        (place / "done.json").write_text("{}")
    assert find_weights(str(run)).folder == run / "rounds" / "001" / "final"


def test_a_run_is_found_by_its_name_and_a_checkpoint_by_its_folder(run: Path):
    assert find_weights("one", runs=run.parent).run == run
    found = find_weights(str(run / "checkpoints" / "step-00000004"))
    assert found.run == run and found.step == 4 and not found.note


def test_damaged_final_weights_are_an_error(run: Path):
    (_weights(run / "final", 10) / "model.safetensors").write_bytes(b"y" * 8)
    with pytest.raises(CheckpointError, match="CHECKPOINT-DAMAGED"):
        find_weights(str(run))


def test_a_run_without_weights_is_an_error(run: Path):
    for folder in (run / "checkpoints").iterdir():
        folder.rename(run / folder.name.replace("step", "gone"))
    with pytest.raises(CheckpointError, match="NO-CHECKPOINT"):
        find_weights(str(run))


def test_other_names_mean_no_run_and_have_no_steps(tmp_path: Path):
    assert find_weights("tiny-llama", runs=tmp_path).folder is None
    with pytest.raises(UsageError, match="no folder of a run"):
        find_weights("tiny-llama", 3, runs=tmp_path)
