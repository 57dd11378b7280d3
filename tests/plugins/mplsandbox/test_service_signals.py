"""``llmfw sandbox serve`` ends in order, or at once, and leaves no sandbox behind."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from llmfw.testing import plugin_module

Sandbox = plugin_module("mplsandbox", "executor").Sandbox

JSON = {"Content-Type": "application/json"}


def until(true: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextmanager
def program(tmp_path: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``llmfw sandbox serve`` on a free port. -> The process and its URL."""
    command = [sys.executable, "-m", "llmfw.cli", "sandbox", "serve", "--port", "0", "--jobs", "2", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        try:
            assert process.stderr
            line = process.stderr.readline()
            assert line.startswith("listening on http://127.0.0.1:"), line + process.stderr.read()
            yield process, line.split()[2].rstrip(",")
        finally:
            process.kill()


def start(url: str, seconds: float) -> http.client.HTTPConnection:
    one = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    code = f"import time; time.sleep({seconds}); print('done')"
    one.request("POST", "/run", json.dumps({"code": code, "lang": "python", "cases": [{}]}), JSON)
    return one


def sandboxes(process: subprocess.Popen[str], count: int) -> list[psutil.Process]:
    """The processes below, once a program runs in them."""
    parent = psutil.Process(process.pid)
    until(lambda: sum(one.name().startswith("python") for one in parent.children(True)) >= count)
    return parent.children(True)


@pytest.mark.kill
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_lets_what_runs_end(tmp_path: Path, sandbox: Sandbox, number: int, code: int) -> None:
    with program(tmp_path) as (process, url):
        one = start(url, 1)
        sandboxes(process, 2)
        process.send_signal(number)
        assert json.loads(one.getresponse().read())["cases"][0]["stdout"] == "done\n"
        assert process.wait(10) == code
        assert process.stderr and "stopped: 1 requests carried out" in process.stderr.read()
    assert not list(tmp_path.iterdir())


@pytest.mark.kill
@pytest.mark.parametrize("how", ["grace", "twice", "kill"])
def test_what_does_not_end_in_time_is_ended_and_no_sandbox_stays(
    tmp_path: Path, sandbox: Sandbox, how: str
) -> None:
    words = ["--grace", "0.3"] if how == "grace" else []
    with program(tmp_path, *words) as (process, url):
        start(url, 30)
        left = sandboxes(process, 2)
        begun = time.monotonic()
        process.send_signal(signal.SIGKILL if how == "kill" else signal.SIGTERM)
        if how == "twice":
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
        assert process.wait(10) == {"grace": 143, "twice": 130, "kill": -9}[how]
        assert time.monotonic() - begun < 8
    _, alive = psutil.wait_procs(left, timeout=5)
    assert not alive
