"""What was run, with its figure: each case asserts its bound, and docs/tested/ keeps what was last noted.

    note("adapters", "LoRA", command="llmfw fit adapter.kind=lora", measure="max |logit difference|",
         value=difference, bound=0.0)

`LLMFW_NOTE=1 pytest tests/tested` writes docs/tested/AREA.json anew, and docs/tested.md comes of it; without
it a case that the files don't hold (or hold with another command, measure or bound) fails.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from filelock import FileLock

FOLDER = Path(__file__).parents[2] / "docs" / "tested"
AREAS = {
    "models": "Models",
    "encoder_decoder": "Encoder-decoder models",
    "adapters": "Adapters, quantisation, optimizers, precisions",
    "auxiliary": "Auxiliary models",
    "backends": "What samples",
    "export": "Export",
    "data": "Data",
    "evaluation": "Evaluation",
    "strategies": "Strategies",
    "sweep": "Sweeps",
}
_FIXED = ("command", "measure", "bound")


def note(
    area: str, case: str, *, command: str, measure: str, value: float, bound: float | None = None
) -> None:
    """Assert ``value <= bound`` (None: a finite number is all that is asked) and note the case.

    Args:
        command: what a user types for it, on one line; paths shortened to FILE, RUN, DIR.
        measure: what ``value`` is, e.g. "max |logit difference| to transformers", "final loss".
    """
    value = float(value)
    assert math.isfinite(value), f"{case}: {measure} is {value}"
    if bound is not None:
        assert value <= bound, f"{case}: {measure} is {value}, more than {bound}"
    _keep(area, case, {"command": command, "measure": measure, "value": value, "bound": bound})


def note_refusal(area: str, case: str, *, command: str, line: str) -> None:
    """Note a case that is refused, with the error's one line (paths shortened by the caller)."""
    assert line.startswith("error[") and "\n" not in line, line
    _keep(area, case, {"command": command, "refused": line})


def _keep(area: str, case: str, entry: dict[str, Any]) -> None:
    assert area in AREAS, area
    entry = {"test": os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0], **entry}
    path = FOLDER / f"{area}.json"
    if os.environ.get("LLMFW_NOTE") != "1":
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        fixed = [name for name in (*_FIXED, "test", "refused") if name in entry]
        assert {name: known.get(case, {}).get(name) for name in fixed} == {
            name: entry[name] for name in fixed
        }, f"docs/tested/{area}.json says otherwise of {case!r}: LLMFW_NOTE=1 pytest tests/tested"
        return
    FOLDER.mkdir(exist_ok=True)
    with FileLock(f"{path}.lock"):
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        known[case] = entry
        path.write_text(json.dumps(known, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
