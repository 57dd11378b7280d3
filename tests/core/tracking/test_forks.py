"""A killed process holds no lock through children that outlive it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from llmfw.core.tracking.files import try_lock, unlock


@pytest.mark.kill
def test_a_killed_holders_forked_children_do_not_keep_its_lock(tmp_path: Path) -> None:
    """As a training run with loader processes that is killed and started again at once."""
    holder = os.fork()
    if holder == 0:
        try_lock(tmp_path / ".lock")
        worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60.0,))
        worker.start()
        (tmp_path / "worker").write_text(str(worker.pid))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(holder, 0)
    orphan = int((tmp_path / "worker").read_text())
    try:
        os.kill(orphan, 0)  # it lives
        handle = try_lock(tmp_path / ".lock", tries=200)  # the child lets go as soon as it is scheduled
        assert handle is not None
        unlock(handle)
    finally:
        os.kill(orphan, signal.SIGKILL)


def test_a_fork_does_not_take_the_lock_from_its_parent(tmp_path: Path) -> None:
    handle = try_lock(tmp_path / ".lock")
    assert handle is not None
    child = os.fork()
    if child == 0:
        os._exit(0 if try_lock(tmp_path / ".lock") is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    unlock(handle)
