"""A spare sandbox: it takes one job, waits for no longer than it says, and nobody else has it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import psutil
import pytest

from llmfw.testing import plugin_module

Sandbox = plugin_module("mplsandbox", "executor").Sandbox
Case = plugin_module("mplsandbox", "records").Case
Limits = plugin_module("mplsandbox", "records").Limits
Request = plugin_module("mplsandbox", "records").Request
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
