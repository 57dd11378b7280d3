"""A spare sandbox: it takes one job, waits for no longer than it says, and nobody else has it."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable

import psutil
import pytest

from llmfw.testing import plugin_module

Sandbox = plugin_module("mplsandbox", "executor").Sandbox
Case = plugin_module("mplsandbox", "records").Case
LADDER = plugin_module("mplsandbox", "isolation.backends").LADDER
Limits = plugin_module("mplsandbox", "records").Limits
Request = plugin_module("mplsandbox", "records").Request
Standing = plugin_module("mplsandbox", "isolation.standing").Standing
spares = plugin_module("mplsandbox", "isolation.spares")
WHERE = "import os; print(os.environ.get('HOME'), sorted(os.listdir('.')), len(os.listdir('/proc/self/fd')))"


def until(found: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "it didn't come about"
        time.sleep(0.02)


def ready(sandbox: Sandbox) -> list[object]:
    """The spares that wait."""
    return [standing for standing, _ in sandbox._backend.run.__self__._ready.values()]


@pytest.fixture
def warm(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """A sandbox with a spare, on a machine where a second processor is free."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    sandbox.close()
    sandbox.run(Request(code="print(1)", lang="python", cases=[Case()]))
    until(lambda: len(ready(sandbox)) == 1)
    return sandbox


def test_the_next_job_takes_the_spare_and_sees_what_a_fresh_sandbox_shows(warm: Sandbox) -> None:
    [spare] = ready(warm)
    seen = warm.run(Request(code=WHERE, lang="python", cases=[Case()])).cases[0].stdout
    assert seen == "/work ['main.py'] 4\n", "its own folder, its three descriptors and the list's"
    assert spare not in ready(warm) and not spare.alive
    warm.close()
    assert warm.run(Request(code=WHERE, lang="python", cases=[Case()])).cases[0].stdout == seen


def test_what_a_job_writes_is_not_there_for_the_next_one(warm: Sandbox) -> None:
    for _ in range(3):
        code = "import os; print(os.listdir('/tmp')); open('/tmp/x', 'w'); open('y', 'w')"
        assert warm.run(Request(code=code, lang="python", cases=[Case()])).cases[0].stdout == "[]\n"


def test_a_spare_that_died_is_replaced_in_silence(warm: Sandbox) -> None:
    [spare] = ready(warm)
    spare._process.kill()
    spare._process.wait()
    assert warm.run(Request(code="print(1)", lang="python", cases=[Case()])).verdict == "OK"


def test_a_spare_that_nobody_takes_is_gone_soon_with_its_processes(
    warm: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    [spare] = ready(warm)
    pid = spare._process.pid
    assert psutil.pid_exists(pid)
    until(lambda: not psutil.pid_exists(pid), 3 * spares.IDLE)
    assert not ready(warm)


def test_jobs_of_other_sizes_keep_one_spare_each_and_never_more_than_two(warm: Sandbox) -> None:
    for disk in (16, 24, 32, 16):
        request = Request(code="print(1)", lang="python", cases=[Case()], limits=Limits(disk=disk))
        assert warm.run(request).verdict == "OK"
        until(lambda disk=disk: disk in warm._backend.run.__self__._ready)
        assert len(ready(warm)) <= 2


def test_no_spare_is_started_where_all_processors_have_jobs(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    sandbox.close()
    assert sandbox.run(Request(code="print(1)", lang="python", cases=[Case()])).verdict == "OK"
    time.sleep(0.2)
    assert not ready(sandbox)


def test_a_forked_process_has_no_spare_of_its_parent_and_takes_none_away(warm: Sandbox) -> None:
    [spare] = ready(warm)
    child = os.fork()
    if child == 0:
        alone = not ready(warm)
        held = warm.run(Request(code="print(1)", lang="python", cases=[Case()])).verdict == "OK"
        os._exit(0 if alone and held else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert spare.alive and warm.run(Request(code="print(1)", lang="python", cases=[Case()])).verdict == "OK"


def test_a_caller_with_hundreds_of_open_files_gets_its_programs_streams_right(sandbox: Sandbox) -> None:
    """The supervisor used to move descriptors to 200 and up, over those that came with such numbers."""
    for count in range(188, 204):
        held = [os.open("/dev/null", os.O_RDONLY) for _ in range(count)]
        try:
            sandbox.close()
            code = "import sys; print(input()); print('err', file=sys.stderr)"
            stage = sandbox.run(Request(code=code, lang="python", cases=[Case(stdin="in")])).cases[0]
            assert (stage.stdout, stage.stderr) == ("in\n", "err\n"), count
        finally:
            for fd in held:
                os.close(fd)


@pytest.mark.slow
@pytest.mark.parametrize("name", LADDER["strict"])
def test_killed_at_any_moment_of_a_start_a_process_leaves_nothing_of_its_sandbox(name: str) -> None:
    """bubblewrap's process 1 waits for the one that made it: of 300 processes killed in their first 25 ms, 41
    and then 55 left one behind that waited forever. A pipe's end shows whether anybody still holds it.
    """
    wall = Sandbox(name=name)._backend.run.__self__._wall
    chance = random.Random(1)
    ends = []
    for _ in range(60):
        end, mark = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                Standing(wall, 16, (mark,))
                time.sleep(30)
            finally:
                os._exit(0)
        os.close(mark)
        time.sleep(chance.uniform(0.001, 0.025))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        ends.append(end)
    for end in ends:
        os.set_blocking(end, False)
        until(lambda end=end: let_go(end))
        os.close(end)


def let_go(end: int) -> bool:
    """Whether nobody can write into a pipe any more."""
    try:
        return os.read(end, 1) == b""
    except BlockingIOError:
        return False
