"""What a run keeps for its later rounds, in its own folder: a round that is taken up again finds it there."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import CritiqueError

FOLDER = "critique_loop"


def keep(folder: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as ``critique_loop/NAME.jsonl`` of the run's folder, durably, by rename."""
    place = folder / FOLDER / f"{name}.jsonl"
    place.parent.mkdir(parents=True, exist_ok=True)
    half = place.with_suffix(".half")
    with half.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        file.flush()
        os.fsync(file.fileno())  # a later round counts on it, whatever happens to the machine
    os.replace(half, place)


def kept(folder: Path, name: str) -> bool:
    """Whether that was written."""
    return (folder / FOLDER / f"{name}.jsonl").is_file()


def load(folder: Path, name: str) -> list[dict[str, Any]]:
    """The rows that ``keep`` wrote.

    Raises:
        CritiqueError: KEPT-ROWS: they're gone or damaged.
    """
    place = folder / FOLDER / f"{name}.jsonl"
    try:
        return [json.loads(line) for line in place.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise CritiqueError(
            "KEPT-ROWS",
            f"what an earlier round of this run has written can't be read ({type(error).__name__})",
            mend="begin the run anew: later rounds need it",
            file=place,
        ) from error
