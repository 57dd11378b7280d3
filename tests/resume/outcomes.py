"""Where the long commands of this folder keep what they found."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from typing import Any

from tests.resume.trials import ROOT

OUT = ROOT / "tests" / "resume" / "outcomes.json"


def write(part: str, found: Any) -> None:
    """Put one command's outcome beside the others'."""
    told = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    about = {
        "python": platform.python_version(),
        "torch": version("torch"),
        "lightning": version("lightning"),
    }
    told[part] = {"versions": about, "found": found}
    OUT.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
