"""A rendered package of a kind: built, installed in a clean environment, its own tests run there.

The commit draws two of the eight kinds; ``LLMFW_WHEELS=all`` takes every one (a quarter of an hour).
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest

from llmfw.testing.laws import KINDS
from llmfw.testing.render import write_package
from tests.drawing import asked_or_drawn
from tests.thirdparty.environment import Environment, build_wheel

NAMES = {kind: f"new_{kind}" for kind in KINDS}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", asked_or_drawn(list(KINDS), 2, "LLMFW_WHEELS"))
def test_a_rendered_package_installs_and_passes_its_tests_at_once(
    kind: str, clean: Environment, tmp_path: Path
):
    """Its unit tests and every law of its kind; a law that had nothing to look at is told, and counted."""
    name = NAMES[kind]
    folder = write_package(name, kind, tmp_path)
    wheel = build_wheel(folder, tmp_path / "dist")
    clean.install(wheel)
    inside = zipfile.ZipFile(wheel).namelist()
    for file in ("card.toml", "config.yaml", "README.md", "py.typed", "plugin.py", "reproduce.py"):
        assert f"llmfw_{name}/{file}" in inside
    listed = clean.llmfw("plugins", "list", cwd=tmp_path)
    assert re.search(rf"^{name} +{kind} +llmfw-{name} 0\.1\.0 ", listed.stdout, re.MULTILINE), listed.stdout
    told = clean.pytest("-rs", cwd=folder)
    assert told.returncode == 0, told.stdout[-6000:] + told.stderr[-2000:]
    assert (
        f"{clean.packages}"
        in clean.run(
            "-c", f"import llmfw, llmfw_{name}; print(llmfw.__file__, llmfw_{name}.__file__)", cwd=tmp_path
        ).stdout
    )
    skipped = re.search(r"(\d+) skipped", told.stdout)
    assert int(skipped[1] if skipped else 0) <= SKIPPED[kind], told.stdout[-3000:]


SKIPPED = {
    "loss": 1, "sampler": 2, "datamodule": 5, "transform": 2, "surgery": 2, "kv_cache": 2, "decoder": 2,
    "service": 6,
}  # fmt: skip
"""Laws at most that have nothing to look at, by kind."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_of_them_side_by_side_are_listed_and_shown(clean: Environment, tmp_path: Path):
    """Eight distributions in one environment: each card is read, none is broken, none hides another."""
    wheels = [
        build_wheel(write_package(name, kind, tmp_path), tmp_path / "dist" / kind)
        for kind, name in NAMES.items()
    ]
    clean.install(*wheels)
    listed = clean.llmfw("plugins", "list", cwd=tmp_path)
    assert listed.returncode == 0 and "warning" not in listed.stderr, listed.stderr
    for kind, name in NAMES.items():
        assert re.search(rf"^{name} +{kind} ", listed.stdout, re.MULTILINE)
    shown = clean.llmfw("plugins", "show", NAMES["loss"], cwd=tmp_path)
    assert shown.returncode == 0 and "neutral setting: new_loss.flipped=0.0 is exactly dpo" in shown.stdout
