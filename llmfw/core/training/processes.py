"""The processes that one process starts for its other devices: none outlives the run, and none is waited for
in vain.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from llmfw.core.errors import ResourceError
from llmfw.core.say import LAUNCH, first_to_say, process_rank
from llmfw.core.training.launch import is_loss_of_rank, launched, lost

_LOOK, _GRACE = 0.5, 15.0
"""Seconds between looks at the others, and until a process that waits for a dead one is ended by force (a
GPU's collectives may wait for ever)."""
_children: list[subprocess.Popen[bytes]] = []


class Launcher(_SubprocessScriptLauncher):
    """Runs the command again for every further device, as Lightning does. A process that fails isn't the
    others' SIGKILL, though: they notice, report and close what is theirs.
    """

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Any = None, **kwargs: Any) -> Any:
        """Start the others where that is ours to do, then call the function."""
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            self._call_children_scripts()
            _children[:] = self.procs
            threading.Thread(target=_watch_children, args=(list(self.procs),), daemon=True).start()
        return function(*args, **kwargs)


@contextmanager
def together() -> Iterator[None]:
    """Work of all processes of a run. Where another process's end breaks it, it ends as RANK-LOST; processes
    that were started here are gone afterwards.
    """
    mine = LAUNCH in os.environ and launched() is None and process_rank() > 0
    if mine and threading.current_thread() is threading.main_thread():
        threading.Thread(target=_watch_parent, args=(os.getppid(),), daemon=True).start()
    try:
        yield
    except Exception as error:
        if not is_loss_of_rank(error):
            raise
        raise _explained(error) from error
    finally:
        _reap(5.0 if sys.exc_info()[0] else 60.0)


def _explained(error: Exception) -> ResourceError:
    """RANK-LOST, with what is known of the process that ended first."""
    found = lost(error)
    end = time.monotonic() + 5.0
    while _children and time.monotonic() < end:
        for number, child in enumerate(_children, start=1):
            code = child.poll()
            if code is not None and code < 0:
                return _killed(number, -code)
            if code:
                found.exit_code = code  # type: ignore[misc]  # the first failure decides
                return found
        time.sleep(0.05)
    return found


def _killed(number: int, by: int) -> ResourceError:
    return ResourceError(
        "RANK-LOST",
        f"process {number} of the run was killed by {signal.Signals(by).name}",
        mend="look at the machine's log: the memory may have run out",
    )


def _reap(patience: float) -> None:
    """Wait for the processes that were started here, then end them."""
    end = time.monotonic() + patience
    for child in _children:
        try:
            child.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    _children.clear()


def _watch_children(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """End this process where it still waits long after another has failed."""
    while any(child.poll() is None for child in children) or any(child.returncode for child in children):
        for number, child in enumerate(children, start=1):
            if child.poll():
                _end(number, child.returncode)
                return
        time.sleep(_LOOK)


def _end(number: int, code: int) -> None:
    time.sleep(_GRACE)
    if not _children:  # the run has ended, and has told why
        return
    for child in _children:
        child.kill()
    if code < 0 and first_to_say(line := str(_killed(number, -code))):
        print(line, file=sys.stderr, flush=True)
    os._exit(code if code > 0 else ResourceError.exit_code)


def _watch_parent(parent: int) -> None:
    """End this process where the one that started it is gone and this one still waits for it."""
    while os.getppid() == parent:
        time.sleep(_LOOK)
    time.sleep(_GRACE)
    os._exit(ResourceError.exit_code)
