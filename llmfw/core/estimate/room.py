"""How much memory there is for a process: what is free on the machine, and what its group may have."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
_NO_LIMIT = 2**60
"""Bytes from which on a limit means that there's none (version 1 writes a very large number)."""


@dataclass(frozen=True, kw_only=True)
class Room:
    """Bytes that one process of the run may have, what it holds already included."""

    bytes: int
    how: str


def room(processes: int = 1, device: str = "cpu") -> Room:
    """Memory for each of ``processes`` that share this machine (GPU: of the current one)."""
    if device == "cuda":
        import torch

        free, whole = torch.cuda.mem_get_info()
        ours = int(torch.cuda.memory_reserved())
        return Room(bytes=free + ours, how=f"free of the GPU's {whole / 2**30:.1f} GiB")
    import psutil

    held = int(psutil.Process().memory_info().rss)
    found = Room(bytes=int(psutil.virtual_memory().available) + held, how="free on this machine")
    limited = group_room()
    if limited is not None and limited + held < found.bytes:
        found = Room(bytes=limited + held, how="left by the limit of this control group")
    share = found.bytes // max(1, processes)
    return (
        found if processes == 1 else Room(bytes=share, how=f"{found.how}, for each of {processes} processes")
    )


def group_room(groups: Path = _GROUPS, own: Path = _OWN) -> int | None:
    """Bytes that the narrowest control group above this process has left (versions 1 and 2); None: no limit.

    File pages that nobody uses count as free.
    """
    found: list[int] = []
    with suppress(OSError):
        for line in own.read_text(encoding="utf-8").splitlines():
            _, kinds, path = line.split(":", 2)
            if kinds == "":
                found += _left(groups, path, "memory.max", "memory.current", "inactive_file")
            elif "memory" in kinds.split(","):
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
                found += _left(groups / "memory", path, *names)
    return min(found) if found else None


def _left(root: Path, path: str, limit: str, used: str, unused: str) -> list[int]:
    folder = root / path.lstrip("/")
    found: list[int] = []
    for group in [folder, *folder.parents]:
        if not group.is_relative_to(root):
            break
        with suppress(OSError, ValueError):  # "max", or a group that this container doesn't see
            most = int((group / limit).read_text(encoding="ascii"))
            if most < _NO_LIMIT:
                told = dict(line.split() for line in (group / "memory.stat").read_text("ascii").splitlines())
                held = int((group / used).read_text(encoding="ascii"))
                found.append(max(0, most - held + int(told.get(unused, 0))))
    return found
