"""The wheel carries what the program reads at run time, and nothing that is only the repository's."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.architecture.conftest import ROOT, tracked


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy of the tracked files, so that nothing is left in the checkout."""
    place = tmp_path_factory.mktemp("build")
    for file in tracked():
        name = file.relative_to(ROOT)
        if name.parts[0] in ("llmfw", "pyproject.toml", "setup.py", "README.md", "LICENSE"):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(file.read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(place / "dist")]
    told = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    (file,) = Path(place / "dist").glob("*.whl")
    return zipfile.ZipFile(file)


def test_every_file_of_the_package_is_in_the_wheel(wheel: zipfile.ZipFile):
    wanted = {str(path.relative_to(ROOT)) for path in tracked() if path.relative_to(ROOT).parts[0] == "llmfw"}
    assert wanted - set(wheel.namelist()) == set()


def test_the_wheel_holds_the_package_and_its_metadata_alone(wheel: zipfile.ZipFile):
    assert {name.split("/")[0] for name in wheel.namelist()} == {"llmfw", "llmfw-0.1.0.dist-info"}


def test_the_wheel_names_its_plugins_its_program_and_its_licence(wheel: zipfile.ZipFile):
    told = wheel.read("llmfw-0.1.0.dist-info/entry_points.txt").decode()
    assert "llmfw = llmfw.cli:main" in told and "ld_dpo = llmfw.plugins.ld_dpo.plugin:LdDpo" in told
    assert "llmfw-0.1.0.dist-info/licenses/LICENSE" in wheel.namelist()


def test_malware_on_the_registry_can_not_satisfy_the_requirements(wheel: zipfile.ZipFile):
    """lightning 2.6.2 and 2.6.3 (GHSA-w37p-236h-pfx3)."""
    from packaging.requirements import Requirement

    metadata = wheel.read("llmfw-0.1.0.dist-info/METADATA").decode()
    lines = [
        line.removeprefix("Requires-Dist: ")
        for line in metadata.splitlines()
        if "Requires-Dist: lightning" in line
    ]
    (lightning,) = map(Requirement, lines)
    assert not any(lightning.specifier.contains(bad) for bad in ("2.6.2", "2.6.3"))
    assert lightning.specifier.contains("2.6.6")
