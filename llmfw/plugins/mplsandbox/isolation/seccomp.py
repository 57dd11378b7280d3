"""The system calls that a sandboxed program is refused, as a classic BPF program for ``seccomp(2)``.

A list of what is refused, not of what is allowed: thirteen languages' runtimes need too many for the latter.
What it refuses is the kernel's surface beyond files, memory, threads and pipes: sockets but AF_UNIX ones,
other processes' memory, keys, profiling, io_uring, userfaultfd, new namespaces, mounts, modules, clocks, and
memory that no file system or mapping accounts for (memfd, System V).
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Iterator, Mapping

REFUSED = 0x00050000 | errno.EPERM
ABSENT = 0x00050000 | errno.ENOSYS
ALLOWED, KILLED = 0x7FFF0000, 0x80000000
"""What becomes of a call."""
_LOAD, _JUMP_EQ, _JUMP_GE, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NR, _ARCH, _ARG0 = 0, 4, 16
_NAMESPACES = 0x7E020080
"""CLONE_NEW* of user, mount, PID, network, IPC, UTS, cgroup and time namespaces."""
_AF_UNIX = 1
_ALIKE = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428,
    "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "clone3": 435,
    "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442, "quotactl_fd": 443,
    "memfd_secret": 447,
}  # fmt: skip
"""Calls younger than the common numbering have one number everywhere."""
NUMBERS: Mapping[str, Mapping[str, int]] = {
    "x86_64": {
        **_ALIKE,
        "socket": 41, "clone": 56, "shmget": 29, "shmat": 30, "shmctl": 31, "semget": 64, "msgget": 68,
        "ptrace": 101, "syslog": 103, "personality": 135, "vhangup": 153, "modify_ldt": 154,
        "pivot_root": 155, "adjtimex": 159, "chroot": 161, "acct": 163, "settimeofday": 164,
        "mount": 165, "umount2": 166, "swapon": 167, "swapoff": 168, "reboot": 169, "iopl": 172,
        "ioperm": 173, "init_module": 175, "delete_module": 176, "quotactl": 179, "lookup_dcookie": 212,
        "clock_settime": 227, "mbind": 237, "set_mempolicy": 238, "mq_open": 240, "kexec_load": 246,
        "add_key": 248, "request_key": 249, "keyctl": 250, "migrate_pages": 256, "unshare": 272,
        "move_pages": 279, "perf_event_open": 298, "fanotify_init": 300, "name_to_handle_at": 303,
        "open_by_handle_at": 304, "clock_adjtime": 305, "setns": 308, "process_vm_readv": 310,
        "process_vm_writev": 311, "kcmp": 312, "finit_module": 313, "memfd_create": 319,
        "kexec_file_load": 320, "bpf": 321, "userfaultfd": 323,
    },
    "aarch64": {
        **_ALIKE,
        "lookup_dcookie": 18, "umount2": 39, "mount": 40, "pivot_root": 41, "chroot": 51, "vhangup": 58,
        "quotactl": 60, "acct": 89, "personality": 92, "unshare": 97, "kexec_load": 104, "init_module": 105,
        "delete_module": 106, "clock_settime": 112, "syslog": 116, "ptrace": 117, "reboot": 142,
        "settimeofday": 170, "adjtimex": 171, "mq_open": 180, "msgget": 186, "semget": 190, "shmget": 194,
        "shmctl": 195, "shmat": 196, "socket": 198, "add_key": 217, "request_key": 218, "keyctl": 219,
        "clone": 220, "swapon": 224, "swapoff": 225, "mbind": 235, "set_mempolicy": 237, "migrate_pages": 238,
        "move_pages": 239, "perf_event_open": 241, "fanotify_init": 262, "name_to_handle_at": 264,
        "open_by_handle_at": 265, "clock_adjtime": 266, "setns": 268, "process_vm_readv": 270,
        "process_vm_writev": 271, "kcmp": 272, "finit_module": 273, "memfd_create": 279, "bpf": 280,
        "userfaultfd": 282, "kexec_file_load": 294,
    },
}  # fmt: skip
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32 = 0x40000000
"""From this number on calls are of the x32 interface."""
_PRETEND_ABSENT = ("clone3", "memfd_create", "io_uring_setup", "io_uring_enter", "io_uring_register")
"""Runtimes that meet ENOSYS take the older way; ``clone3`` hides its flags behind a pointer."""


def filter_program(machine: str | None = None) -> bytes | None:
    """The filter, as ``bwrap --seccomp`` reads it; None: not known for this processor.

    Args:
        machine: as ``uname -m``; None: this one's.
    """
    machine = platform.machine() if machine is None else machine
    if machine not in NUMBERS:
        return None
    return b"".join(struct.pack("<HBBI", *line) for line in _lines(machine))


def _lines(machine: str) -> Iterator[tuple[int, int, int, int]]:
    """Instructions (code, jump if true, jump if false, constant); each rule jumps over itself only."""
    numbers = NUMBERS[machine]
    yield _LOAD, 0, 0, _ARCH
    yield _JUMP_EQ, 1, 0, _ARCHITECTURES[machine]
    yield _RETURN, 0, 0, KILLED
    yield _LOAD, 0, 0, _NR
    if machine == "x86_64":
        yield _JUMP_GE, 0, 1, _X32
        yield _RETURN, 0, 0, KILLED
    special = {"socket", "clone", "personality"}
    for name, number in numbers.items():
        if name not in special:
            yield _JUMP_EQ, 0, 1, number
            yield _RETURN, 0, 0, ABSENT if name in _PRETEND_ABSENT else REFUSED
    yield _JUMP_EQ, 0, 4, numbers["socket"]
    yield _LOAD, 0, 0, _ARG0
    yield _JUMP_EQ, 0, 1, _AF_UNIX
    yield _RETURN, 0, 0, ALLOWED
    yield _RETURN, 0, 0, REFUSED
    yield _JUMP_EQ, 0, 4, numbers["clone"]
    yield _LOAD, 0, 0, _ARG0
    yield _JUMP_SET, 0, 1, _NAMESPACES
    yield _RETURN, 0, 0, REFUSED
    yield _RETURN, 0, 0, ALLOWED
    yield _JUMP_EQ, 0, 5, numbers["personality"]
    yield _LOAD, 0, 0, _ARG0
    yield _JUMP_EQ, 1, 0, 0
    yield _JUMP_EQ, 0, 1, 0xFFFFFFFF
    yield _RETURN, 0, 0, ALLOWED
    yield _RETURN, 0, 0, REFUSED
    yield _RETURN, 0, 0, ALLOWED
