"""Peaks of memory over a stretch of time, on the host and on the GPU."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
"""Linux: written to clear_refs, it sets the peak of resident memory (VmHWM) to what is resident now."""
_open: list[Peak] = []
"""Stretches under way, outer ones first: one that begins resets the counters, so the others note theirs."""


class Peak:
    """The highest memory since a stretch began. Bytes; of this process, and of its current GPU."""

    def __init__(self) -> None:
        self.before = _resident()
        self.reset = _reset_host()
        self._host, self._gpu, self._ended = 0, 0, False
        _reset_gpu()

    @property
    def host(self) -> int | None:
        """Resident memory, libraries included; None: this system doesn't tell."""
        self._take()
        return self._host or None

    @property
    def gpu(self) -> int | None:
        """Memory of tensors on the GPU; None: none was used."""
        self._take()
        return self._gpu or None

    @property
    def how(self) -> str:
        """One line that says what ``host`` is a peak of."""
        if self.host is None:
            return "this system tells no peak of memory"
        began = "" if self.before is None else f" ({self.before / 2**30:.2f} GiB when it began)"
        if self.reset:
            return f"peak resident memory of the process while the run lasted{began}"
        return f"peak resident memory since the process began, which can't be reset here{began}"

    def _end(self) -> None:
        self._take()
        self._ended = True

    def _take(self) -> None:
        if self._ended:  # the counters now tell of what came after it
            return
        self._host = max(self._host, _peak() or 0)
        cuda = _cuda()
        if cuda is not None:
            self._gpu = max(self._gpu, int(cuda.max_memory_allocated()))


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Watch the peaks while the block lasts; blocks may be nested."""
    for outer in _open:
        outer._take()
    mine = Peak()
    _open.append(mine)
    try:
        yield mine
    finally:
        mine._end()
        _open.remove(mine)


def _told(key: str) -> int | None:
    """A figure of /proc/self/status, in bytes."""
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    found = next((line.split()[1] for line in lines if line.startswith(f"{key}:")), None)
    return int(found) * 1024 if found is not None else None


def _resident() -> int | None:
    return _told("VmRSS")


def _peak() -> int | None:
    told = _told("VmHWM")
    if told is not None or sys.platform == "win32":
        return told
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _reset_host() -> bool:
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def _reset_gpu() -> None:
    cuda = _cuda()
    if cuda is not None:
        cuda.reset_peak_memory_stats()


def _cuda() -> Any:
    """torch.cuda where it's in use already; looking must not start it."""
    torch: Any = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None
