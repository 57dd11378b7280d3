"""What a run tells the person in front of it: on standard error, from one process only."""

from __future__ import annotations

import os
import sys
from typing import Any


def is_main_process() -> bool:
    """Whether this is the process that writes the run's files (global rank 0)."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) == 0


def say(note: str) -> None:
    """One line about what happens, or happened unasked."""
    if is_main_process():
        print(note, file=sys.stderr, flush=True)


def show(renderable: Any) -> None:
    """A table or report, from the main process."""
    if is_main_process():
        from rich.console import Console

        Console(stderr=True).print(renderable)
