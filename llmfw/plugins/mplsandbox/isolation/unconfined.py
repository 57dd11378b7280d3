"""No wall at all: programs run as this user, held by limits alone. Only for those who typed the phrase."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .job import Job, Outcome
from .standing import Wall, carry_out

_SUPERVISOR = Path(__file__).parent / "supervisor.py"


def run(job: Job) -> Outcome:
    """Carry a job out in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="llmfw-unconfined-") as place:

        def start(
            *, control: int, report: int, disk: int, pass_fds: Sequence[int]
        ) -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                [sys.executable, "-I", "-S", str(_SUPERVISOR), str(control), str(report)],
                pass_fds=pass_fds, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE, cwd=place, start_new_session=True, env={"PATH": os.defpath},
            )  # fmt: skip

        return carry_out(Wall(start=start, cwd=place, unconfined=True), job)
