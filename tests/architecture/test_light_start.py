"""What starts the command line costs nothing: no heavy library is imported before one is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = (
    "bitsandbytes", "datasets", "gguf", "lightning", "mlflow", "numpy", "omegaconf", "pandas", "peft",
    "plotly", "pyarrow", "safetensors", "sklearn", "tokenizers", "torch", "torchmetrics", "transformers",
)  # fmt: skip

PROBE = """
import sys
try:
    {code}
except SystemExit as end:
    assert end.code in (None, 0), end.code
print("LOADED:", *sorted(set({heavy!r}) & set(sys.modules)))
"""


def loaded_after(code: str, folder: Path) -> list[str]:
    """Heavy libraries in sys.modules after a piece of code ran in a fresh interpreter."""
    told = subprocess.run(
        [sys.executable, "-c", PROBE.format(code=code, heavy=HEAVY)],
        cwd=folder,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    (line,) = [line for line in told.stdout.splitlines() if line.startswith("LOADED:")]
    return line.split()[1:]


def verb(*arguments: str) -> str:
    return f"from llmfw.cli import main; sys.argv = ['llmfw', *{list(arguments)!r}]; main()"


@pytest.mark.parametrize(
    "code",
    [
        "import llmfw",
        "from llmfw import Plugin, hookimpl, Loss, Surgery, DatasetTransform",
        verb("--help"),
        verb("--version"),
        verb("plugins"),
        verb("plugins", "list"),
        verb("plugins", "show", "dpo"),
        verb("fit", "--help"),
        verb("compare", "--help"),
        verb("cache", "ls"),
    ],
    ids=lambda code: code.split("['llmfw', *")[-1].split("]; main")[0],
)
def test_it_loads_nothing_heavy(code: str, tmp_path: Path):
    assert loaded_after(code, tmp_path) == []


def test_the_probe_sees_what_is_loaded(tmp_path: Path):
    """The negative control: a name that needs torch loads it."""
    assert "torch" in loaded_after("from llmfw import Batch", tmp_path)
