"""The wall of a sandbox where bubblewrap is missing: ``unshare`` runs this, and it becomes the supervisor.

It stands alone, as the supervisor does. In new namespaces it makes a root of its own with the toolchains
read-only and sized file systems, moves there, gives up every capability, and sets the filter of system calls.
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, BIND, REC, PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18


def check(done: int, what: str) -> None:
    if done:
        code = ctypes.get_errno()
        raise OSError(code, "%s: %s" % (what, os.strerror(code)))


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    words = [word.encode() for word in (source, target, kind)]
    check(LIBC.mount(*words, ctypes.c_ulong(flags), data.encode()), "mount %s" % target)


def bind(source: str, target: str, writable: bool = False) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    mount(source, target, "", BIND | REC)
    if not writable:
        mount("", target, "", BIND | REMOUNT | RDONLY | NOSUID | NODEV)


def tmpfs(place: str, size: int, names: int, mode: str) -> None:
    os.makedirs(place, exist_ok=True)
    mount("tmpfs", place, "tmpfs", NOSUID | NODEV, "size=%d,nr_inodes=%d,mode=%s" % (size, names, mode))


def build(plan: dict[str, object], root: str) -> None:
    """The new root, at ``root``."""
    disk = int(str(plan["disk"])) << 20
    names = 512 + 256 * (disk >> 20)
    tmpfs(root, 1 << 20, 512, "755")
    for place in plan["binds"]:  # type: ignore[attr-defined]
        bind(place, root + place)
    for name, target in plan["links"].items():  # type: ignore[attr-defined]
        os.symlink(target, root + name)
    for device in ("null", "zero", "full", "random", "urandom"):
        bind("/dev/" + device, root + "/dev/" + device, writable=True)
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(target, root + "/dev/" + name)
    tmpfs(root + "/dev/shm", max(1 << 20, disk // 4), names, "1777")
    tmpfs(root + "/tmp", disk, names, "1777")
    tmpfs(root + "/work", disk, names, "755")
    os.makedirs(root + "/proc")
    mount("proc", root + "/proc", "proc", NOSUID | NODEV | NOEXEC)
    for path, fd in plan["texts"].items():  # type: ignore[attr-defined]
        os.makedirs(os.path.dirname(root + path), exist_ok=True)
        with open(root + path, "wb") as file, open(fd, "rb") as text:
            file.write(text.read())


def enter(root: str) -> None:
    """Make it the root, and forget the old one."""
    os.mkdir(root + "/old")
    os.chdir(root)
    check(LIBC.pivot_root(b".", b"old"), "pivot_root")
    os.chdir("/work")
    check(LIBC.umount2(b"/old", 2), "umount")
    os.rmdir("/old")
    mount("", "/", "", BIND | REMOUNT | RDONLY | NOSUID | NODEV)


def give_up(rules: bytes) -> None:
    """No capabilities, no way to new ones, and the filter."""
    for number in range(64):
        if LIBC.prctl(23, number, 0, 0, 0) < 0:
            break
        LIBC.prctl(24, number, 0, 0, 0)
    check(LIBC.prctl(47, 4, 0, 0, 0), "ambient capabilities")
    check(LIBC.capset(struct.pack("<II", 0x20080522, 0), bytes(24)), "capset")
    check(LIBC.prctl(38, 1, 0, 0, 0), "no new privileges")
    lines = ctypes.create_string_buffer(rules, len(rules))
    program = struct.pack("HxxxxxxP", len(rules) // 8, ctypes.addressof(lines))
    check(LIBC.prctl(22, 2, program, 0, 0), "seccomp")


def main(plan_fd: int) -> None:
    with open(plan_fd, "rb") as file:
        plan = json.load(file)
    with open(plan["seccomp"], "rb") as file:
        rules = file.read()
    LIBC.sethostname(b"sandbox", 7)
    mount("none", "/", "", REC | PRIVATE)
    build(plan, "/tmp")
    enter("/tmp")
    give_up(rules)
    os.execve(plan["argv"][0], plan["argv"], plan["env"])


if __name__ == "__main__":
    main(int(sys.argv[1]))
