"""The main job on the real model and the real pairs, cut down to two steps, killed in the second."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmfw.core.tracking import read_journal

SETTINGS = [
    "trainer.max_steps=2",
    "trainer.micro_batch=1",
    "trainer.accumulate=2",
    "trainer.validation_limit=2",
    "trainer.threads=1",
    "checkpoint.every=1",
    "generation.max_new_tokens=8",
    "ld_dpo.answers=1",
    "run.dir=runs/real",
]


def _llmfw(here: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llmfw.cli", *words],
        cwd=here,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=500,
    )


@pytest.mark.slow
@pytest.mark.kill
def test_ld_dpo_on_smollm2_and_champ_pairs_survives_a_kill_and_answers_afterwards(tmp_path: Path):
    fit = ["fit", "--plugin", "ld_dpo", *SETTINGS]
    killed = _llmfw(tmp_path, *fit, LLMFW_FAILPOINT="train.mid_accum:2:kill")
    assert killed.returncode == -9, killed.stderr
    folder = tmp_path / "runs" / "real"
    begun = json.loads((folder / "run.json").read_text())

    resumed = _llmfw(tmp_path, *fit, "--resume", "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert "from step 1" in resumed.stderr
    result = json.loads(resumed.stdout)
    assert result["steps"] == 2 and result["validation"]["rewards/margins/n"] == 2
    assert result["first"]["loss"] == pytest.approx(0.693147, abs=1e-5)
    ended = json.loads((folder / "run.json").read_text())
    assert (ended["id"], ended["status"]) == (begun["id"], "FINISHED")
    view = read_journal(folder / "journal.jsonl")
    assert [step for step, _ in view.series["loss"]] == [1, 2]

    answered = _llmfw(tmp_path, "generate", "Is 91 prime?", f"model={folder}", "generation.max_new_tokens=8")
    assert answered.returncode == 0 and answered.stdout.strip(), answered.stderr
