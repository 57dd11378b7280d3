"""Sandboxes without bubblewrap: util-linux's unshare around a wall that is our own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from .filesystem import PASSWD, links, readable
from .job import supervisor
from .process import begin, texts_open
from .seccomp import filter_program

_NEW = (
    "--user", "--map-user=65534", "--map-group=65534", "--keep-caps",
    "--mount", "--pid", "--fork", "--kill-child=KILL", "--net", "--ipc", "--uts",
    "--cgroup",
)  # fmt: skip


@cache
def _enclose() -> str:
    return (Path(__file__).parent / "enclose.py").read_text(encoding="utf-8")


def start(
    *,
    control: int,
    report: int,
    disk: int,
    pass_fds: Sequence[int],
    python: str,
    binds: Sequence[str] = (),
) -> subprocess.Popen[bytes]:
    """New namespaces, in which enclose.py builds the wall and becomes the supervisor."""
    with texts_open(supervisor(python), PASSWD, filter_program() or b"") as (code, passwd, seccomp):
        inside = [python, "-I", "-S", "-B", "/supervisor.pyc", str(control), str(report)]
        plan = {
            "disk": disk, "binds": readable(binds), "links": links(), "argv": inside, "env": {},
            "texts": {"/etc/passwd": passwd, "/supervisor.pyc": code}, "seccomp": seccomp,
        }  # fmt: skip
        with texts_open(json.dumps(plan).encode()) as (told,):
            words = ["unshare", *_NEW, "--", python, "-I", "-S", "-B", "-c", _enclose(), str(told)]
            return begin(words, (code, passwd, seccomp, told, *pass_fds))
