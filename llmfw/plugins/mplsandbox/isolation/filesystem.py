"""What a sandbox sees of the machine: the same for every backend."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

WORK = "/work"
"""Where a program finds its files, and may write."""
_ETC = (
    "alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "java-11-openjdk", "java-17-openjdk",
    "java-21-openjdk", "php", "mono", "R", "perl", "openssl", "ghc",
)  # fmt: skip
"""What runtimes read below /etc; nothing else of it is there."""
_VAR = (Path("/var/lib/ghc"),)
"""What they read elsewhere."""
PASSWD = b"sandbox:x:65534:65534:sandbox:/work:/bin/sh\n"
ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": WORK,
    "TMPDIR": "/tmp",  # noqa: S108 - of the sandbox
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "USER": "sandbox",
}
_OWN = ("/tmp", WORK, "/dev", "/proc")  # noqa: S108 - of the sandbox
"""Folders that every sandbox has of its own."""
_ROOTS = tuple(Path("/") / name for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"))


def links() -> dict[str, str]:
    """/bin, /lib and their kin where they're links into /usr."""
    return {str(place): os.readlink(place) for place in _ROOTS if place.is_symlink()}


def readable(binds: Sequence[str] = ()) -> list[str]:
    """Folders and files of the machine that programs may read, at their own places.

    Args:
        binds: more of them.
    """
    folders = [str(place) for place in _ROOTS if place.is_dir() and not place.is_symlink()]
    etc = [str(place) for name in _ETC if (place := Path("/etc") / name).exists()]
    return ["/usr", *folders, *etc, *(str(place) for place in _VAR if place.exists()), *binds]


def unreadable(place: Path) -> str:
    """Why programs couldn't read a folder of the machine that is bound; empty: they can.

    Only root's sandboxes run as another user, whom a folder may be closed to.
    """
    place = place.absolute()
    own = next((one for one in _OWN if place.is_relative_to(one) or Path(one).is_relative_to(place)), "")
    if own:
        return f"{place} can't be read from a sandbox: it has a {own} of its own"
    if not place.exists():
        return f"{place} doesn't exist"
    if os.geteuid() != 0:
        return ""
    for one in (place, *place.parents):
        mode = one.stat().st_mode
        if not mode & stat.S_IXOTH or (one == place and not mode & stat.S_IROTH):
            return f"{place} can't be read from a sandbox: {one} is closed to other users"
    return ""
