"""One process speaks; what all find wrong is said once."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import pytest

from llmfw.core import say

VARIABLES = (
    "RANK",
    "LOCAL_RANK",
    "SLURM_NTASKS",
    "SLURM_PROCID",
    "SLURM_JOB_NAME",
    "TORCHELASTIC_RUN_ID",
    say.LAUNCH,
)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No launcher's variables, and a folder of temporary files."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.mark.parametrize(
    ("variables", "rank"),
    [
        ({}, 0),
        ({"LOCAL_RANK": "1"}, 1),
        ({"RANK": "3", "LOCAL_RANK": "0"}, 3),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "2"}, 2),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_NAME": "interactive", "LOCAL_RANK": "1"}, 1),
    ],
)
def test_a_process_knows_its_number(
    variables: dict[str, str], rank: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert say.process_rank() == rank
    say.say("a note")
    assert capsys.readouterr().err == ("a note\n" if rank == 0 else "")


def test_a_line_is_said_once_in_a_launch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert say.first_to_say("wrong") and say.first_to_say("wrong"), "a process on its own always speaks"
    assert not say.others_said(0.0) and not list(tmp_path.iterdir())
    monkeypatch.setenv(say.LAUNCH, "one")
    assert not say.others_said(0.0)
    assert say.first_to_say("wrong") and not say.first_to_say("wrong") and say.first_to_say("another")
    assert say.others_said(0.0)
    monkeypatch.setenv(say.LAUNCH, "two")
    assert not say.others_said(0.0) and say.first_to_say("wrong")
    old = time.time() - 120
    for claim in tmp_path.iterdir():
        os.utime(claim, (old, old))
    assert say.first_to_say("wrong"), "what was said minutes ago is said again"
