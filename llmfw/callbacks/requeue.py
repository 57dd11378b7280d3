"""SLURM: a job that is stopped before its end is put back into the queue, and goes on from its checkpoint."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess

log = logging.getLogger("llmfw")
_PATIENCE = 60.0
"""Seconds for scontrol to answer."""


def slurm_job() -> str | None:
    """The id of the SLURM job (of an array's task: with its number) that this process belongs to."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def requeue() -> bool:
    """Ask ``scontrol`` to put this job back; whether it did. A failure is a warning."""
    job, command = slurm_job(), shutil.which("scontrol")
    if job is None or command is None:
        missing = "this is no SLURM job" if job is None else "there is no scontrol on PATH"
        log.warning("warning[REQUEUE] the job isn't put back into the queue: %s", missing)
        return False
    try:
        done = subprocess.run(
            [command, "requeue", job], capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("warning[REQUEUE] job %s isn't put back into the queue: %s", job, error)
        return False
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        log.warning("warning[REQUEUE] job %s isn't put back into the queue: %s", job, said)
        return False
    log.warning("job %s is put back into the queue", job)
    return True
