"""Sandboxes by bubblewrap: every namespace, no capability, read-only toolchains, sized file systems."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

WORK = "/work"
"""Where a program finds its files, and may write."""
ETC = (
    "alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "java-11-openjdk", "java-17-openjdk",
    "java-21-openjdk", "php", "mono", "R", "perl", "openssl", "ghc",
)  # fmt: skip
"""What runtimes read below /etc; nothing else of it is there."""
PASSWD = b"sandbox:x:65534:65534:sandbox:/work:/bin/sh\n"
ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": WORK,
    "TMPDIR": "/tmp",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "USER": "sandbox",
}


def command(
    inside: Sequence[str],
    *,
    bwrap: str,
    disk: int,
    supervisor: int,
    passwd: int,
    seccomp: int | None,
    disable_userns: bool,
    binds: Sequence[str] = (),
) -> list[str]:
    """The call of bwrap that runs ``inside`` as process 1.

    Args:
        disk: MiB of the working folder; as much again in /tmp, a quarter of it in /dev/shm.
        supervisor: descriptor of the supervisor's text, which becomes /supervisor.py.
        passwd: descriptor of what becomes /etc/passwd.
        seccomp: descriptor of the filter.
        binds: more folders of the host, read-only, at their own places.
    """
    size = disk << 20
    words = [
        bwrap, "--unshare-all", "--unshare-user", "--uid", "65534", "--gid", "65534", "--hostname", "sandbox",
        "--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL", "--clearenv",
        "--ro-bind", "/usr", "/usr", *_roots(), *_etc(),
        *(word for place in binds for word in ("--ro-bind", place, place)),
        "--proc", "/proc", "--dev", "/dev",
        "--size", str(max(1 << 20, size // 4)), "--perms", "1777", "--tmpfs", "/dev/shm",
        "--remount-ro", "/dev", "--size", str(size), "--perms", "1777", "--tmpfs", "/tmp",
        "--size", str(size), "--tmpfs", WORK,
        "--ro-bind-data", str(passwd), "/etc/passwd", "--ro-bind-data", str(supervisor), "/supervisor.py",
        "--remount-ro", "/", "--chdir", WORK,
    ]  # fmt: skip
    if disable_userns:
        words.append("--disable-userns")
    if seccomp is not None:
        words += ["--seccomp", str(seccomp)]
    return [*words, "--", *inside]


def _roots() -> Iterator[str]:
    """/bin, /lib and their kin: links into /usr, or folders of their own on older systems."""
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        place = Path("/") / name
        if place.is_symlink():
            yield from ("--symlink", os.readlink(place), str(place))
        elif place.is_dir():
            yield from ("--ro-bind", str(place), str(place))


def _etc() -> Iterator[str]:
    for name in ETC:
        if (place := Path("/etc") / name).exists():
            yield from ("--ro-bind", str(place), str(place))
