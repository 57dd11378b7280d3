"""A CodeExecutor in 60 lines: namespaces, a root of its own, limits, another user. It has to be started as
root; a text, so that mutants can be made of it.
"""

import os
import shutil

USABLE = os.getuid() == 0 and all(map(shutil.which, ("unshare", "setpriv", "prlimit", "chroot", "mount")))

SOURCE = r'''
"""Runs a Python program in namespaces of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from typing import Any

from llmfw import Execution, ExecutionLimits

SPACES = ["--net", "--pid", "--ipc", "--uts", "--mount", "--fork", "--kill-child"]
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
ROOT = """
mount -t tmpfs -o size=32m,mode=755 sandbox /media && cd /media || exit 90
for place in /usr /lib /lib64 /bin "$1"; do
    [ -d "$place" ] || continue
    mkdir -p "/media$place" && mount --bind "$place" "/media$place" || exit 91
    mount -o remount,bind,ro "/media$place" || exit 91
done
mkdir /media/proc /media/tmp && mount -t proc proc /media/proc && chmod 1777 /media/tmp || exit 92
"""
# the shell stays: another user's program would no longer die with its parent
PROGRAM = """
chroot /media prlimit --nproc="$3" --as="$4" setpriv --reuid="$2" --regid="$2" --clear-groups --no-new-privs \
    "$1/bin/python3" -I -c "$5"
exit $?
"""


class Sandbox:
    """Without state: each program gets a place and a user of its own."""

    def run(
        self, code: str, *, language: str = "python", stdin: str = "", limits: ExecutionLimits | None = None
    ) -> Execution:
        """Run one program to its end or to a limit."""
        limits, begun = limits or ExecutionLimits(), time.monotonic()
        user = str(60000 + os.getpid() % 5000)
        words = [sys.base_prefix, user, str(limits.processes), str(limits.memory << 20), code]
        process = subprocess.Popen(
            ["unshare", *SPACES, "/bin/sh", "-c", ROOT + PROGRAM, "sh", *words],
            env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        told = [bytearray(), bytearray()]
        readers = [
            threading.Thread(target=read, args=(process, stream, kept, limits.output), daemon=True)
            for stream, kept in zip((process.stdout, process.stderr), told, strict=True)
        ]
        for reader in readers:
            reader.start()
        feeder = threading.Thread(target=feed, args=(process, stdin.encode()), daemon=True)
        feeder.start()
        late = False
        try:
            process.wait(limits.seconds)
        except subprocess.TimeoutExpired:
            late = True
            process.kill()
            process.wait()
        for thread in (*readers, feeder):
            thread.join(1)
        full = any(len(kept) > limits.output for kept in told)
        stopped = late or full
        ended = "runtime_error" if process.returncode else "ok"
        status: Any = "output_limit" if full else "time_limit" if late else ended
        out, err = (bytes(kept[: limits.output]).decode(errors="replace") for kept in told)
        return Execution(
            status=status, stdout=out, stderr=err, exit_code=None if stopped else process.returncode,
            seconds=time.monotonic() - begun,
        )


def read(process: Any, stream: Any, kept: bytearray, most: int) -> None:
    """Keep what is written, and stop whoever writes too much."""
    while piece := stream.read1(65536):
        kept += piece[: most + 1 - len(kept)]
        if len(kept) > most:
            process.kill()
            return


def feed(process: Any, text: bytes) -> None:
    """Write the program's input."""
    try:
        process.stdin.write(text)
        process.stdin.close()
    except BrokenPipeError:
        pass
'''
