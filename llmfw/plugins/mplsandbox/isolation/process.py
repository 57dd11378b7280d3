"""Starting programs as somebody who owns nothing, and handing them texts."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

FIRST_UID = 61184
"""From here on users that no system hands out; each sandbox of a process run as root has its own."""
_UIDS = 4096
_turns = itertools.count()


@contextmanager
def texts_open(*texts: bytes) -> Iterator[tuple[int, ...]]:
    """Descriptors that give these texts to whoever inherits them."""
    fds = []
    try:
        for text in texts:
            fds.append(os.memfd_create("llmfw", 0))
            with open(fds[-1], "wb", closefd=False) as file:
                file.write(text)
            os.lseek(fds[-1], 0, os.SEEK_SET)
        yield tuple(fds)
    finally:
        for fd in fds:
            os.close(fd)


def begin(
    words: Sequence[str], pass_fds: Sequence[int], *, stdin: int | None = None, stdout: int | None = None,
    env: dict[str, str] | None = None, killed: bool = True,
) -> subprocess.Popen[bytes]:  # fmt: skip
    """Start a program in a session of its own; where this process is root, as another user each time.

    Args:
        killed: it dies with this process; else it sees to that itself.
    """
    options = [*(["--pdeathsig=KILL"] if killed else []), *_another()]
    return subprocess.Popen(
        [*(["setpriv", *options] if options else []), *words],
        pass_fds=pass_fds,
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        stdout=subprocess.DEVNULL if stdout is None else stdout,
        stderr=subprocess.PIPE,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", **(env or {})},
        cwd="/",
        start_new_session=True,
    )


def _another() -> list[str]:
    if os.geteuid():
        return []
    uid = FIRST_UID + (os.getpid() * 31 + next(_turns)) % _UIDS
    return [f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
