"""A job under SLURM is put back into the queue by the real ``scontrol`` command's name, here a script."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from llmfw.callbacks import SignalWatch, requeue
from llmfw.callbacks.requeue import slurm_job
from llmfw.core.errors import Interrupted
from llmfw.testing.runner import Runner


def scontrol(folder: Path, code: int = 0) -> Path:
    """A ``scontrol`` that writes down how it was called."""
    folder.mkdir(exist_ok=True)
    script = folder / "scontrol"
    script.write_text(f'#!/bin/sh\necho "$@" >> {folder}/called\necho "no such job" >&2\nexit {code}\n')
    script.chmod(0o755)
    return folder / "called"


def test_the_job_is_asked_for_by_its_id_an_arrays_task_with_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = scontrol(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    assert requeue()
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "4700")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert requeue() and slurm_job() == "4700_3"
    assert called.read_text().split("\n")[:2] == ["requeue 4711", "requeue 4700_3"]


@pytest.mark.parametrize("missing", ["job", "scontrol", "success"])
def test_what_stands_in_the_way_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, missing: str
) -> None:
    scontrol(tmp_path / "bin", code=1)
    monkeypatch.setenv("PATH", str(tmp_path / "bin") if missing != "scontrol" else str(tmp_path))
    if missing != "job":
        monkeypatch.setenv("SLURM_JOB_ID", "4711")
    else:
        monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert not requeue()
    why = {"job": "no SLURM job", "scontrol": "no scontrol", "success": "no such job"}[missing]
    assert "warning[REQUEUE]" in caplog.text and why in caplog.text


def test_usr1_stops_where_it_means_that_the_time_is_nearly_up() -> None:
    def told() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(5)

    with pytest.raises(Interrupted) as caught, SignalWatch(usr1_stops=True):
        told()
    assert caught.value.exit_code == 143


def test_a_job_that_would_begin_anew_each_time_is_refused(runner: Runner, rows_file: Any) -> None:
    runner("fit", f"data={rows_file()}", "trainer.requeue=true").assert_failed(
        "--resume", code="REQUEUE-RESUME"
    )


@pytest.mark.slow
@pytest.mark.kill
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM], ids=["USR1", "TERM"])
def test_a_job_that_is_told_to_go_saves_is_put_back_and_goes_on_from_there(
    runner: Runner, rows_file: Any, tmp_path: Path, number: int
) -> None:
    called = scontrol(tmp_path / "bin")
    env = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_ID": "4711"}
    words = [
        *("fit", f"data={rows_file()}", *runner.settings, "run.dir=run", "trainer.max_steps=400"),
        *("checkpoint.every=0", "trainer.requeue=true", "--resume"),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "llmfw", *words], cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True
    )
    journal = tmp_path / "run" / "journal.jsonl"
    until = time.monotonic() + 120
    while not (journal.exists() and '"consumed","step":3' in journal.read_text()):
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 143, said
    assert called.read_text() == "requeue 4711\n"
    saved = [int(path.name.rpartition("-")[2]) for path in (tmp_path / "run" / "checkpoints").glob("step-*")]
    assert len(saved) == 1 and 3 <= saved[0] < 400
    again = runner.process(*words).assert_ok()
    assert f"from step {saved[0]}" in again.messages
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "FINISHED"
