"""Sandboxes by bubblewrap: every namespace, no capability, read-only toolchains, sized file systems."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from .filesystem import PASSWD, WORK, links, readable
from .job import supervisor
from .process import begin, texts_open
from .seccomp import filter_program


def start(
    *,
    control: int,
    report: int,
    disk: int,
    pass_fds: Sequence[int],
    bwrap: str,
    python: str,
    disable_userns: bool,
    binds: Sequence[str] = (),
) -> subprocess.Popen[bytes]:
    """A bubblewrap around the supervisor, as a user that owns nothing where we are root.

    Until bubblewrap has set its process 1 going, that one waits for it and would wait forever if it were
    killed; so it isn't, before it asks for that itself (``--die-with-parent``). Where we are gone by then,
    the supervisor finds the end of ``control`` in place of a job.
    """
    with texts_open(supervisor(python), PASSWD, filter_program() or b"") as (code, passwd, seccomp):
        words = command(
            [python, "-I", "-S", "-B", "/supervisor.pyc", str(control), str(report)],
            bwrap=bwrap, disk=disk, supervisor=code, passwd=passwd, seccomp=seccomp,
            disable_userns=disable_userns, binds=binds,
        )  # fmt: skip
        return begin(words, (code, passwd, seccomp, *pass_fds), killed=False)


def command(
    inside: Sequence[str],
    *,
    bwrap: str,
    disk: int,
    supervisor: int,
    passwd: int,
    seccomp: int,
    disable_userns: bool,
    binds: Sequence[str] = (),
) -> list[str]:
    """The call of bwrap that runs ``inside`` as process 1.

    Args:
        disk: MiB of the working folder; as much again in /tmp, a quarter of it in /dev/shm.
        supervisor: descriptor of the supervisor's text, which becomes /supervisor.pyc.
        passwd: descriptor of what becomes /etc/passwd.
        seccomp: descriptor of the filter.
        binds: more folders of the host, read-only, at their own places.
    """
    size = disk << 20
    words = [
        bwrap, "--unshare-all", "--unshare-user", "--uid", "65534", "--gid", "65534", "--hostname", "sandbox",
        "--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL", "--clearenv",
        *(word for place in readable(binds) for word in ("--ro-bind", place, place)),
        *(word for place, target in links().items() for word in ("--symlink", target, place)),
        "--proc", "/proc", "--dev", "/dev",
        "--size", str(max(1 << 20, size // 4)), "--perms", "1777", "--tmpfs", "/dev/shm",
        "--remount-ro", "/dev", "--size", str(size), "--perms", "1777", "--tmpfs", "/tmp",
        "--size", str(size), "--tmpfs", WORK,
        "--ro-bind-data", str(passwd), "/etc/passwd", "--ro-bind-data", str(supervisor), "/supervisor.pyc",
        "--remount-ro", "/", "--chdir", WORK,
    ]  # fmt: skip
    if disable_userns:
        words.append("--disable-userns")
    return [*words, "--seccomp", str(seccomp), "--", *inside]
