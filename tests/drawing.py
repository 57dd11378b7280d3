"""What a commit's test run takes of long lists: entries that its hash draws, or those that are asked for."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")


def commit() -> str:
    """The hash of the commit that is checked out; "0" without a repository."""
    told = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return told.stdout.strip() or "0"


def drawn(among: Sequence[_T], count: int, name: str) -> list[_T]:
    """``count`` different entries, as a commit's name falls."""
    return random.Random(hashlib.sha256(name.encode()).hexdigest()).sample(list(among), count)


def asked_or_drawn(names: Sequence[str], count: int, variable: str) -> list[str]:
    """The names that an environment variable lists (``all``, or some, with commas), else drawn ones."""
    wanted = os.environ.get(variable, "")
    if wanted:
        return list(names) if wanted == "all" else wanted.split(",")
    return drawn(names, count, commit())
