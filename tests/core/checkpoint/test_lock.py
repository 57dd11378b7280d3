"""One process per run folder, and folders that can't be written are found at the start."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llmfw.core.checkpoint import Holder, holder, probe_writable, run_lock
from llmfw.core.errors import BusyError, UsageError


def test_a_second_owner_is_refused_and_told_who_holds_the_folder(tmp_path: Path) -> None:
    with run_lock(tmp_path), pytest.raises(BusyError) as caught, run_lock(tmp_path):
        pass
    text = str(caught.value)
    held = holder(tmp_path)
    assert caught.value.exit_code == 9 and held is not None
    assert str(os.getpid()) in text and socket.gethostname() in text and held.started in text


def test_the_folder_is_free_again_afterwards(tmp_path: Path) -> None:
    with run_lock(tmp_path / "new"):
        pass
    with run_lock(tmp_path / "new"):
        assert holder(tmp_path / "new") == Holder(
            pid=os.getpid(),
            host=socket.gethostname(),
            started=json.loads((tmp_path / "new/.lock").read_text())["started"],
        )


HOLD = """
import sys, time
from pathlib import Path
from llmfw.core.checkpoint import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.kill
def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    with pytest.raises(BusyError, match=str(child.pid)), run_lock(tmp_path):
        pass
    child.kill()
    child.wait()
    with run_lock(tmp_path):
        assert holder(tmp_path).pid == os.getpid()


def _inherit_and_linger(seconds: float) -> None:
    time.sleep(seconds)


@pytest.mark.kill
def test_orphans_of_a_killed_holder_are_waited_for(tmp_path: Path) -> None:
    """A forked child (a loader's worker) shares the lock and outlives its killed parent by a second."""
    pid = os.fork()
    if pid == 0:
        with run_lock(tmp_path):
            worker = multiprocessing.get_context("fork").Process(target=_inherit_and_linger, args=(1.0,))
            worker.start()
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert holder(tmp_path) is not None and holder(tmp_path).pid == pid
    with run_lock(tmp_path):
        assert holder(tmp_path).pid == os.getpid()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x", "host": "h", "started": "s"}', "\x00"])
def test_a_lock_file_that_says_nothing_still_refuses_and_still_frees(tmp_path: Path, text: str) -> None:
    with run_lock(tmp_path) as path:
        path.write_text(text)
        with pytest.raises(BusyError, match="another process"), run_lock(tmp_path):
            pass
    with run_lock(tmp_path):
        pass


def test_a_holder_on_another_host_counts_as_alive() -> None:
    assert Holder(pid=2**22 + 1, host="elsewhere.invalid", started="").alive
    assert not Holder(pid=2**22 + 1, host=socket.gethostname(), started="").alive


def test_the_probe_makes_the_folder_and_leaves_nothing_in_it(tmp_path: Path) -> None:
    probe_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize("place", ["under a file", "on a read-only system"])
def test_a_folder_that_cannot_be_written_is_a_usage_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "run" if place == "under a file" else Path("/proc/llmfw-run")
    with pytest.raises(UsageError) as caught:
        probe_writable(folder)
    assert caught.value.exit_code == 2 and "run.dir" in str(caught.value)


@pytest.mark.skipif(os.getuid() != 0, reason="changes its user to nobody")
def test_a_folder_of_another_user_is_a_usage_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent.name.startswith("pytest-"):
            parent.chmod(0o755)
    pid = os.fork()
    if pid == 0:
        os.setuid(65534)
        try:
            probe_writable(tmp_path)
        except UsageError:
            os._exit(2)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
