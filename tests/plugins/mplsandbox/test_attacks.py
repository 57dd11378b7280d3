"""The thirty attacks, as root and as an unprivileged user, and what a run leaves behind (oracle 8)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from llmfw.testing import plugin_module

attacks = plugin_module("mplsandbox", "attacks").attacks
carry_out = plugin_module("mplsandbox", "attacks").carry_out
survivors = plugin_module("mplsandbox", "attacks").survivors
Sandbox = plugin_module("mplsandbox", "executor").Sandbox
SandboxUnavailable = plugin_module("mplsandbox", "isolation.backends").SandboxUnavailable
NUMBERS = plugin_module("mplsandbox", "isolation.seccomp").NUMBERS
filter_program = plugin_module("mplsandbox", "isolation.seccomp").filter_program
Level = plugin_module("mplsandbox", "records").Level
Case = plugin_module("mplsandbox", "records").Case
Request = plugin_module("mplsandbox", "records").Request


def test_there_are_thirty_with_numbers_of_their_own() -> None:
    assert [one.number for one in attacks()] == list(range(1, 31))


@pytest.mark.slow
@pytest.mark.parametrize("number", range(1, 31))
@pytest.mark.parametrize(
    ("level", "name"), [("strict", "bubblewrap"), ("strict", "unshare"), ("paranoid", "gvisor")]
)
def test_an_attack_is_held(level: Level, name: str, number: int) -> None:
    try:
        sandbox = Sandbox(level, name=name)
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    [held] = carry_out(sandbox, [attacks()[number - 1]])
    assert not held.wrong, held


REACHES = """
import os
for n in range(12):
    for mode in (os.O_WRONLY, os.O_RDONLY, os.O_RDWR):
        try: fd = os.open(f"/proc/1/fd/{n}", mode)
        except OSError: continue
        try: os.write(fd, b"x" * 64)
        except OSError: continue  # something that anyone may read, such as a file of /proc
        print("wrote", n)
for name in ("mem", "environ", "maps"):
    try: open(f"/proc/1/{name}", "rb").read(16)
    except OSError: continue
    if name == "mem": print("read", name)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("level", "name"), [("strict", "bubblewrap"), ("strict", "unshare"), ("paranoid", "gvisor")]
)
def test_a_program_cannot_write_the_supervisors_report(level: str, name: str) -> None:
    """Under gVisor it could while both were one user: any verdict could be forged."""
    try:
        sandbox = Sandbox(level, name=name)
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    stage = sandbox.run(Request(code=REACHES, lang="python", cases=[Case()])).cases[0]
    assert (stage.verdict, stage.stdout) == ("OK", ""), stage


def test_an_attack_that_gets_through_is_told_as_such(sandbox: Sandbox) -> None:
    """The judge is judged: each attack's expectation is turned round, and each is found to be broken."""
    harmless = Request(code="print('hello')", lang="python")
    for one in attacks():
        if one.verdicts == ("OK",) and one.says is None:
            continue
        request = replace(one.request, code=harmless.code, outputs=())
        [held] = carry_out(sandbox, [replace(one, request=request)])
        assert held.wrong or one.number in (20, 30), one.name


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_all_are_held_for_an_unprivileged_user(tmp_path: Path) -> None:
    """A user without a home, who may read the checkout as far as the sandbox needs it."""
    copy = tmp_path / "site"
    copy.mkdir()
    for name in {"llmfw", Sandbox.__module__.partition(".")[0]}:
        subprocess.run(["cp", "-r", Path(sys.modules[name].__file__).parent, copy], check=True)
    for place in (tmp_path, *tmp_path.parents):
        if place.stat().st_uid == 0 and place != Path("/") and not place.stat().st_mode & 0o001:
            place.chmod(place.stat().st_mode | 0o011)
    code = (
        "import sys, json; sys.path.insert(0, sys.argv[1])\n"
        f"from {carry_out.__module__} import carry_out\n"
        f"from {Sandbox.__module__} import Sandbox\n"
        "import os; assert os.getuid() == 4242\n"
        "print(json.dumps([[h.attack.name, h.wrong] for h in carry_out(Sandbox())]))"
    )
    words = [
        "setpriv",
        "--reuid=4242",
        "--regid=4242",
        "--clear-groups",
        "/usr/bin/python3",
        "-c",
        code,
        copy,
    ]
    done = subprocess.run(words, capture_output=True, text=True, cwd="/", env={"PATH": "/usr/bin:/bin"})
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert len(told) == 30 and not [one for one in told if one[1]], told


def test_a_killed_parent_takes_its_sandboxes_along(tmp_path: Path) -> None:
    code = (
        f"from {Sandbox.__module__} import Sandbox\n"
        f"from {Request.__module__} import Case, Limits, Request\n"
        "Sandbox().run(Request(code='import time; time.sleep(30)', lang='python', cases=[Case()],"
        " files={'mark-%s': ''}))"
    )
    mark = f"m{os.getpid()}"
    process = subprocess.Popen([sys.executable, "-c", code % mark], start_new_session=True)
    try:
        found: list[int] = []
        for _ in range(200):
            found = _sleepers(process.pid)
            if found:
                break
            os.sched_yield()
            subprocess.run(["sleep", "0.05"], check=True)
        assert found, "it never began"
    finally:
        process.kill()
        process.wait()
    for _ in range(100):
        if not any(Path(f"/proc/{pid}").exists() for pid in found):
            break
        subprocess.run(["sleep", "0.05"], check=True)
    assert not any(Path(f"/proc/{pid}").exists() for pid in found)


def _sleepers(parent: int) -> list[int]:
    """Processes below one of ours that run the program."""
    below, waiting = list[int](), [parent]
    while waiting:
        pid = waiting.pop()
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                children = [int(word) for word in task.read_text().split()]
            except OSError:
                continue
            below += children
            waiting += children
    return [pid for pid in below if b"main.py" in _command(pid)]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_survivors_are_found_by_their_mark() -> None:
    mark = f"marked-{os.getpid()}"
    code = f"import time; '{mark}'; print(flush=True); time.sleep(30)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        process.stdout.readline()  # its command line is there by then, which it isn't when Popen returns
        assert survivors(mark) == [process.pid]
    finally:
        process.kill()
        process.communicate()
    assert survivors(mark) == []


def test_the_filter_knows_two_processors_and_says_so_of_others() -> None:
    for machine, numbers in NUMBERS.items():
        program = filter_program(machine)
        assert program is not None and len(program) % 8 == 0
        assert len(set(numbers.values())) == len(numbers), "two calls of one number"
    assert filter_program("riscv64") is None
