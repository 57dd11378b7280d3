"""Disks that are really full: a small one is mounted for a script's length."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

needs_mounts = pytest.mark.skipif(
    shutil.which("unshare") is None or os.getuid() != 0, reason="mounts a disk: root, unshare"
)


def on_small_disk(folder: Path, script: str, size: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a Python script with a disk of ``size`` (a mount's) and ``words`` as its arguments. Skips the test
    where mounting isn't allowed.
    """
    file, disk = folder / "script.py", folder / "disk"
    file.write_text(script)
    disk.mkdir()
    command = " ".join([sys.executable, str(file), str(disk), *words])
    child = subprocess.run(
        ["unshare", "-m", "sh", "-c", f"mount -t tmpfs -o size={size} tmpfs {disk} && exec {command}"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode and "mount" in child.stderr:
        pytest.skip("mounting isn't allowed here")
    return child
