"""Executors that let one thing through: the attack that finds it, and no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmfw.testing.attacks import ATTACKS, attack
from tests.toys.executor import SOURCE, USABLE

pytestmark = pytest.mark.skipif(not USABLE, reason="the executor has to be started as root, with util-linux")


def executor(*changes: tuple[str, str]) -> Any:
    """The toy's Sandbox, with some texts replaced."""
    text, home = SOURCE, dict[str, Any]()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    exec(compile(text, "executor", "exec", dont_inherit=True), home)
    return home["Sandbox"]()


def failures(place: Path, *changes: tuple[str, str]) -> dict[str, str]:
    """Attack -> what was wrong, of those that got through."""
    sandbox = executor(*changes)
    told = {one.name: attack(sandbox, one, place) for one in ATTACKS}
    return {name: wrong for name, wrong in told.items() if wrong is not None}


def test_an_executor_that_holds_everything_back_fails_no_attack(tmp_path: Path):
    assert failures(tmp_path) == {}


_NO_ROOT = [
    ("chroot /media prlimit", "prlimit"),
    ('setpriv --reuid="$2" --regid="$2" --clear-groups --no-new-privs', ""),
]


@pytest.mark.parametrize(
    ("changes", "name", "told"),
    [
        ([('"--net", ', "")], "network", "it reached a port of this machine"),
        ([("env=ENVIRONMENT", "env={**os.environ, **ENVIRONMENT}")], "environment", "it saw a secret"),
        (_NO_ROOT, "files", "it wrote a file of this machine"),
        (_NO_ROOT, "private files", "it saw a secret of this machine"),
        (_NO_ROOT, "other processes", "it saw a secret of this machine"),
        ([('--as="$4"', "")], "memory", "it got 512 MiB where 128 MiB are allowed"),
        ([('--nproc="$3"', "")], "processes", "it made 61 processes where 8 are allowed"),
        ([('"--pid", ', "")], "daemon", "1 of its processes are still alive"),
        ([("piece[: most + 1 - len(kept)]", "piece"), ("kept[: limits.output]", "kept")], "output", "bytes"),
        ([("            process.kill()\n            process.wait()", "")], "endless loop", "still alive"),
        ([("chroot /media prlimit", "exec chroot /media prlimit")], "deaf sleeper", "still alive"),
        ([("process.wait(limits.seconds)", "process.wait(9 * limits.seconds)")], "endless loop", "0.5 were"),
        ([('"runtime_error" if process.returncode else "ok"', '"ok"')], "exit code", "is ok (exit code 3)"),
        ([('if process.returncode else "ok"', 'if b"Error" in told[0] else "ok"')], "words", "runtime_error"),
        ([("stdin.write(text)", "stdin.write(text.replace(b'$', b''))")], "input and output", "stdout"),
    ],
)  # fmt: skip
def test_each_hole_is_found_by_its_attack(
    tmp_path: Path, changes: list[tuple[str, str]], name: str, told: str, monkeypatch: pytest.MonkeyPatch
):
    if told.endswith("were"):
        monkeypatch.setattr("llmfw.testing.attacks._GRACE", 2.0)
    wrong = attack(executor(*changes), next(one for one in ATTACKS if one.name == name), tmp_path)
    assert wrong is not None and wrong.startswith(f"{name}: ") and told in wrong
