"""Folders that can't be written are found at the start."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmfw.core.checkpoint import CheckpointCallback, probe_writable
from llmfw.core.errors import UsageError
from tests.toys.training import Recorder, fit


def test_the_probe_makes_the_folder_and_leaves_nothing_in_it(tmp_path: Path) -> None:
    probe_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize("place", ["under a file", "on a read-only system"])
def test_a_folder_that_cannot_be_written_is_a_usage_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "run" if place == "under a file" else Path("/proc/llmfw-run")
    with pytest.raises(UsageError) as caught:
        probe_writable(folder)
    assert caught.value.exit_code == 2 and "run.dir" in str(caught.value)


@pytest.mark.skipif(os.getuid() != 0, reason="changes its user to nobody")
def test_a_folder_of_another_user_is_a_usage_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent.name.startswith("pytest-"):
            parent.chmod(0o755)
    pid = os.fork()
    if pid == 0:
        os.setuid(65534)
        try:
            probe_writable(tmp_path)
        except UsageError:
            os._exit(2)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2


def test_a_run_whose_checkpoints_cannot_be_written_ends_before_its_first_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    recorder = Recorder()
    with pytest.raises(UsageError):
        fit(tmp_path, recorder, CheckpointCallback(tmp_path / "file" / "checkpoints", every=1))
    assert recorder.reports == []
