"""Sandboxes by gVisor: programs talk to a kernel of their own, not to the machine's."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .filesystem import PASSWD, WORK, links, readable
from .job import Job, Outcome, supervisor
from .process import begin
from .standing import Wall, carry_out

_UID = 65534
"""The user that programs are; the supervisor is another: gVisor lets a user into all of its processes."""
_SETS = ("bounding", "effective", "permitted")
_SUPERVISOR = ["CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_DAC_OVERRIDE", "CAP_CHOWN"]
"""What the supervisor needs of gVisor's own kernel; programs have none of it."""


def run(job: Job, *, runsc: str, python: str, binds: Sequence[str] = ()) -> Outcome:
    """Carry a job out in a container of its own, whose bundle is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="llmfw-gvisor-", ignore_cleanup_errors=True) as place:
        bundle, name = Path(place), f"llmfw-{secrets.token_hex(8)}"
        state = bundle / "state"
        _write(bundle, [python, "-I", "-S", "-B", "/supervisor.pyc", "0", "1"], job.disk, binds)
        state.mkdir()
        for folder in (bundle, state):
            folder.chmod(0o777)  # a user that owns nothing runs it
        words = [
            runsc, "--rootless", "--ignore-cgroups", "--platform=ptrace", "--network=none",
            f"--root={state}",
        ]  # fmt: skip
        env = {"HOME": place, "XDG_RUNTIME_DIR": place}

        def start(
            *, control: int, report: int, disk: int, pass_fds: Sequence[int]
        ) -> subprocess.Popen[bytes]:
            return begin(
                [*words, "run", f"--bundle={bundle}", name], (), stdin=control, stdout=report, env=env
            )

        return carry_out(Wall(start=start, cwd=WORK, captured=True, uid=_UID), job)


def _write(bundle: Path, inside: Sequence[str], disk: int, binds: Sequence[str]) -> None:
    """The bundle: a root of empty folders, what is mounted on them, and the process."""
    root = bundle / "rootfs"
    root.mkdir()
    for folder in ("proc", "dev", "tmp", "etc", WORK.strip("/")):
        (root / folder).mkdir()
    for link, goal in links().items():
        (root / link.lstrip("/")).symlink_to(goal)
    (root / "etc/passwd").write_bytes(PASSWD)
    (root / "supervisor.pyc").write_bytes(supervisor(inside[0]))
    mounts: list[dict[str, Any]] = []
    for source in readable(binds):
        target = root / source.lstrip("/")
        if Path(source).is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
        mounts.append({"destination": source, "type": "bind", "source": source, "options": ["bind", "ro"]})
    mounts.append({"destination": "/proc", "type": "proc", "source": "proc"})
    for inner in (WORK, "/tmp", "/dev/shm"):  # noqa: S108 - of the sandbox
        options = [f"size={disk << 20}", "mode=1777"]
        mounts.append({"destination": inner, "type": "tmpfs", "source": "tmpfs", "options": options})
    config = {
        "ociVersion": "1.0.0",
        "process": {
            "terminal": False, "user": {"uid": 0, "gid": 0}, "args": list(inside), "cwd": WORK,
            "env": ["PATH=/usr/bin:/bin"], "noNewPrivileges": True,
            "capabilities": dict.fromkeys(_SETS, _SUPERVISOR),
        },
        "root": {"path": "rootfs", "readonly": True}, "hostname": "sandbox", "mounts": mounts,
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")]},
    }  # fmt: skip
    (bundle / "config.json").write_text(json.dumps(config))
    for folder, folders, files in os.walk(bundle):
        for one in (*folders, *files):
            if not (path := Path(folder) / one).is_symlink():
                path.chmod(0o755)
