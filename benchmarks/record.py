"""The form in which benchmarks leave their results, and the peers' own environments."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import venv
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def machine() -> dict[str, Any]:
    """What the numbers were measured on; no host name, no path."""
    model = ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else ""
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "processor": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def commit() -> str:
    """The checkout's commit."""
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    return found.stdout.strip()


def write(
    name: str, rows: Sequence[Mapping[str, Any]], *, versions: Mapping[str, str], folder: Path = RESULTS
) -> Path:
    """Write ``folder/NAME.json``: machine, versions, date, commit, rows."""
    result = {
        "machine": machine(),
        "versions": {package: version(package) for package in ("torch", "transformers")} | dict(versions),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit(),
        "rows": list(rows),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def peer_python(name: str) -> Path:
    """The interpreter of a peer's environment, made from ``peers/NAME.txt`` if missing or outdated."""
    pins = ROOT / "benchmarks" / "peers" / f"{name}.txt"
    folder = ROOT / ".venv-peers" / name
    python, mark = folder / "bin" / "python", folder / "made-from.txt"
    digest = sha256(pins.read_bytes()).hexdigest()
    if not (mark.exists() and mark.read_text() == digest):
        print(f"making the environment of {name} from {pins.relative_to(ROOT)} (minutes, once)")
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--requirement", pins], check=True)
        mark.write_text(digest)
    return python
