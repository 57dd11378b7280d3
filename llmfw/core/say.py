"""What a run tells the person in front of it: on standard error, from one process only."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LAUNCH = "LLMFW_LAUNCH"
"""Names the processes that one process starts, so that they know they belong together."""
_FRESH = 60.0
"""Seconds for which a line counts as said."""


def process_rank() -> int:
    """This process's number among those of the run, as its launcher says it; 0 where there is one process."""
    found = os.environ.get("RANK")  # torchrun, and launchers that do as it does
    if found is None and under_srun():
        found = os.environ.get("SLURM_PROCID")
    return int(found if found is not None else os.environ.get("LOCAL_RANK", "0"))


def under_srun() -> bool:
    """Whether SLURM's srun started this process; a shell inside an allocation doesn't count."""
    shell = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
    return "SLURM_NTASKS" in os.environ and "SLURM_PROCID" in os.environ and not shell


def is_main_process() -> bool:
    """Whether this is the process that writes the run's files (global rank 0)."""
    return process_rank() == 0


def say(note: str) -> None:
    """One line about what happens, or happened unasked."""
    if is_main_process():
        print(note, file=sys.stderr, flush=True)


_brief = 0
"""How many blocks of ``brief`` are open."""


@contextmanager
def brief() -> Iterator[None]:
    """Within the block no tables are shown, lines are: for the runs of a series that are all alike."""
    global _brief
    _brief += 1
    try:
        yield
    finally:
        _brief -= 1


def show(renderable: Any) -> None:
    """A table or report, from the main process."""
    if is_main_process() and not _brief:
        from rich.console import Console

        Console(stderr=True).print(renderable)


def first_to_say(line: str, launch: str | None = None) -> bool:
    """Whether no other process of this launch (or of the one that is given) on this machine has said the line
    before: what all of them find wrong is printed once. Always true where one process runs alone.
    """
    launch = launch or _launch()
    if launch is None:
        return True
    _claim(launch, "")
    return _claim(launch, line)


def others_said(patience: float = 3.0, launch: str | None = None) -> bool:
    """Whether another process of this launch says what went wrong, now or within ``patience`` seconds."""
    launch = launch or _launch()
    end = time.monotonic() + patience
    while launch is not None:
        if _age(_place(launch, "")) < _FRESH:
            return True
        if time.monotonic() > end:
            break
        time.sleep(0.05)
    return False


def _claim(launch: str, line: str) -> bool:
    claim = _place(launch, line)
    try:
        if _FRESH <= _age(claim) < float("inf"):
            claim.unlink(missing_ok=True)
        os.close(os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return False
    except OSError:  # better twice than never
        return True
    return True


def _place(launch: str, line: str) -> Path:
    digest = hashlib.sha256(f"{launch}\x1f{line}".encode()).hexdigest()[:24]
    return Path(tempfile.gettempdir()) / f"llmfw-said-{os.getuid()}-{digest}"


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return float("inf")


def _launch() -> str | None:
    env = os.environ
    if LAUNCH in env:
        return env[LAUNCH]
    if "TORCHELASTIC_RUN_ID" in env:
        return f"torchrun-{os.getppid()}-{env.get('TORCHELASTIC_RESTART_COUNT')}"
    if "RANK" in env:
        return f"ranks-{env.get('MASTER_ADDR')}-{env.get('MASTER_PORT')}"
    if under_srun():
        return f"slurm-{env.get('SLURM_JOB_ID')}-{env.get('SLURM_STEP_ID')}"
    return None
