"""A built-in plugin can go: without its folder and its entry point everything else works."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.architecture.conftest import ROOT

GONE = "ld_dpo"
PAIRS = [{"prompt": f"{n}+1=", "chosen": str(n + 1), "rejected": "I do not know"} for n in range(8)]
SMALL = ("model=tiny-llama", "trainer.max_steps=1", "tracking.mlflow=false", "generation.max_new_tokens=4")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that, first on the path, is llmfw installed without the plugin."""
    place = tmp_path_factory.mktemp("site")
    ignored = shutil.ignore_patterns("__pycache__", GONE)
    shutil.copytree(ROOT / "llmfw", place / "llmfw", ignore=ignored)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    info = place / f"llmfw-{project['version']}.dist-info"
    info.mkdir()
    version = f"Metadata-Version: 2.1\nName: llmfw\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(version)
    kept = {name: value for name, value in project["entry-points"]["llmfw.plugins"].items() if name != GONE}
    lines = "".join(f"{name} = {value}\n" for name, value in kept.items())
    (info / "entry_points.txt").write_text(f"[llmfw.plugins]\n{lines}")
    return place


def llmfw(site: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line of the installation in ``site``."""
    return subprocess.run(
        [sys.executable, "-m", "llmfw.cli", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(site), "NO_COLOR": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_list_no_longer_has_it_and_has_the_rest(site: Path, tmp_path: Path):
    told = llmfw(site, tmp_path, "plugins")
    assert told.returncode == 0, told.stderr
    assert "dpo" in told.stdout and GONE not in told.stdout


def test_another_plugin_still_trains_and_its_model_still_answers(site: Path, tmp_path: Path):
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    fitted = llmfw(
        site, tmp_path, "fit", "--plugin", "dpo", "data=pairs.jsonl", "run.dir=run", "dpo.answers=0", *SMALL
    )
    assert fitted.returncode == 0, fitted.stdout + fitted.stderr
    answered = llmfw(site, tmp_path, "generate", "1+1=", "model=run", "generation.max_new_tokens=2")
    assert answered.returncode == 0, answered.stdout + answered.stderr


def test_asking_for_it_is_a_usage_error_that_names_what_is_near(site: Path, tmp_path: Path):
    told = llmfw(site, tmp_path, "fit", "--plugin", GONE, *SMALL)
    assert told.returncode == 2
    (line,) = [line for line in told.stderr.splitlines() if line.startswith("error[")]
    assert GONE in line and "dpo" in line.replace(GONE, "")
