"""Who may import whom: the contracts hold, they cover every module, and each of them can fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.architecture.conftest import ROOT

CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
DOORS = ("llmfw.core.data", "llmfw.core.generation", "llmfw.core.models")


def contract(name: str) -> dict:
    (found,) = (one for one in CONTRACTS if one["name"].startswith(name))
    return found


def layered() -> list[str]:
    """Modules named in the layers, without the marks around them."""
    layers = contract("layers")["layers"]
    return [part.strip(" ()") for layer in layers for part in layer.replace("|", ":").split(":")]


def core_modules() -> list[str]:
    """Modules and packages directly under llmfw.core."""
    folder = ROOT / "llmfw" / "core"
    packages = [path.parent.name for path in folder.glob("*/__init__.py")]
    files = [path.stem for path in folder.glob("*.py") if path.stem != "__init__"]
    return sorted(f"llmfw.core.{name}" for name in [*packages, *files])


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Import-linter with the repository's contracts over the package in ``folder``."""
    program = Path(sys.executable).parent / "lint-imports"
    return subprocess.run(
        [str(program), "--no-logo", "--no-cache", "--config", str(ROOT / "pyproject.toml")],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_import_contract_holds():
    told = lint(ROOT)
    assert told.returncode == 0, told.stdout + told.stderr


def test_every_module_of_the_core_has_a_layer():
    assert sorted(name for name in layered() if name.startswith("llmfw.core.")) == core_modules()


def test_plugins_are_kept_out_of_every_module_of_the_core_that_is_no_door():
    barred = contract("plugins come in by the doors")["forbidden_modules"]
    wanted = [f"{name}.*" if name in DOORS else name for name in core_modules()]
    assert sorted(name for name in barred if name.startswith("llmfw.core.")) == sorted(wanted)


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("llmfw/losses/zz.py", "import llmfw.core.models.names", "layers"),
        ("llmfw/core/errors.py", "import llmfw.core.plan", "layers"),
        ("llmfw/core/schema.py", "import omegaconf", "foundation"),
        ("llmfw/core/plan.py", "import llmfw.plugins.dpo.plugin", "nobody imports plugins"),
        ("llmfw/plugins/dpo/plugin.py", "import llmfw.core.plan", "plugins come in by the doors"),
        ("llmfw/plugins/dpo/plugin.py", "import llmfw.core.models.names", "plugins come in by the doors"),
        (
            "llmfw/plugins/dpo/plugin.py",
            "import llmfw.plugins.ld_dpo.functional",
            "a plugin never imports another",
        ),
        ("llmfw/plugins/dpo/functional.py", "import transformers", "losses and a plugin's mathematics"),
    ],
)
def test_a_forbidden_import_breaks_its_contract(tmp_path: Path, file: str, line: str, broken: str):
    shutil.copytree(ROOT / "llmfw", tmp_path / "llmfw", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / file).open("a") as target:
        target.write(f"\n{line}\n")
    told = lint(tmp_path)
    assert told.returncode == 1, told.stdout + told.stderr
    assert any(row.startswith(broken) and row.endswith("BROKEN") for row in told.stdout.splitlines()), (
        told.stdout
    )
