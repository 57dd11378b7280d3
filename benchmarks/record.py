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
from typing import Any, Literal

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
Goal = tuple[Literal["at least", "at most"], float]


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


def row(
    case: str,
    *,
    ours: float,
    unit: str,
    repetitions: int,
    peer: float | None = None,
    peer_name: str | None = None,
    goal: Goal | None = None,
    judged: float | None = None,
    **further: Any,
) -> dict[str, Any]:
    """One row of a result. ``goal`` judges ``judged``, else the ratio of ours to the peer's."""
    ratio = ours / peer if peer else None
    value = ratio if judged is None else judged
    met: bool | None = None
    if goal is not None:
        assert value is not None, f"{case}: nothing to hold against its goal"
        met = value >= goal[1] if goal[0] == "at least" else value <= goal[1]
    return {
        "case": case, "ours": ours, "peer": peer, "peer_name": peer_name, "unit": unit, "ratio": ratio,
        "repetitions": repetitions, "goal": None if goal is None else goal[1],
        "goal_is": None if goal is None else goal[0], "met": met,
        **({} if judged is None else {"judged": judged}), **further,
    }  # fmt: skip


def write(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    versions: Mapping[str, str],
    folder: Path = RESULTS,
    part: str | None = None,
    **further: Any,
) -> Path:
    """Write ``folder/NAME.json``: machine, versions, date, commit, rows, and what ``further`` names
    (``settings``, ``roofline``). A ``part`` that is measured by itself gets a file, ``NAME.PART.json``.
    """
    result = {
        "machine": machine(),
        "versions": {package: version(package) for package in ("torch", "transformers")} | dict(versions),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit(),
        **further,
        "rows": list(rows),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (f"{name}.json" if part is None else f"{name}.{part}.json")
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def tell(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a line per row: met, missed or without a goal."""
    for one in rows:
        said = {True: "met", False: "MISSED", None: ""}[one["met"]]
        against = "" if one["peer"] is None else f" against {one['peer']:.5g} ({one['peer_name']})"
        ratio = "" if one["ratio"] is None else f", ratio {one['ratio']:.4g}"
        goal = "" if one["goal"] is None else f", goal {one['goal_is']} {one['goal']:g}"
        if "judged" in one:
            goal = f", {one['judged']:.3g}{goal}"
        print(f"{said:6} {one['case']}: {one['ours']:.5g} {one['unit']}{against}{ratio}{goal}")


def environment(name: str) -> Path | None:
    """The interpreter of a peer's environment if it has been made from the present ``peers/NAME.txt``."""
    folder = ROOT / ".venv-peers" / name
    mark = folder / "made-from.txt"
    made = mark.read_text() if mark.exists() else ""
    return folder / "bin" / "python" if made == _digest(name) else None


def peer_python(name: str) -> Path:
    """The interpreter of a peer's environment, made from ``peers/NAME.txt`` if missing or outdated."""
    found = environment(name)
    if found is not None:
        return found
    pins, folder = _pins(name), ROOT / ".venv-peers" / name
    python = folder / "bin" / "python"
    print(f"making the environment of {name} from {pins.relative_to(ROOT)} (minutes, once)")
    venv.create(folder, with_pip=True, clear=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--requirement", pins], check=True)
    (folder / "made-from.txt").write_text(_digest(name))
    return python


def peer_versions(name: str, *packages: str) -> dict[str, str]:
    """Versions in a peer's environment; those of other packages than itself as "NAME's PACKAGE"."""
    code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    told = subprocess.check_output([peer_python(name), "-c", code, *packages], text=True).split()
    return {
        package if package == name else f"{name}'s {package}": found
        for package, found in zip(packages, told, strict=True)
    }


def _pins(name: str) -> Path:
    return ROOT / "benchmarks" / "peers" / f"{name}.txt"


def _digest(name: str) -> str:
    return sha256(_pins(name).read_bytes()).hexdigest()
