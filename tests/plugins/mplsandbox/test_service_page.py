"""The service's page: it needs nothing from elsewhere, and in a real browser it shows a program's verdict."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmfw.testing import plugin_module

Sandbox = plugin_module("mplsandbox", "executor").Sandbox
page = plugin_module("mplsandbox", "page").page
Service = plugin_module("mplsandbox", "service").Service


@pytest.fixture
def service(sandbox: Sandbox) -> Iterator[Service]:
    one = Service(sandbox, port=0)
    one.start()
    yield one
    one.stop(5)


def until(true: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_page_needs_nothing_from_elsewhere_and_its_policy_is_strict(service: Service) -> None:
    with urllib.request.urlopen(f"{service.url}/") as answer:
        html, policy = answer.read().decode(), answer.headers["Content-Security-Policy"]
    assert (html.encode(), policy) == page()
    assert "default-src 'none'" in policy and "unsafe" not in policy and policy.count("'sha256-") == 2
    assert "frame-ancestors 'none'" in policy
    assert "http://" not in html and "https://" not in html and "innerHTML" not in html
    assert " style=" not in html and " onclick=" not in html


class Browser:
    """Chromium over a pair of pipes, with as much of its protocol as is needed here."""

    def __init__(self, chromium: Path, folder: Path) -> None:
        given, self._out = os.pipe()
        self._in, taken = os.pipe()

        def pipes() -> None:
            os.dup2(given, 63)
            os.dup2(taken, 64)
            os.dup2(63, 3)
            os.dup2(64, 4)

        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run")
        self.process = subprocess.Popen(
            [str(chromium), *flags, f"--user-data-dir={folder}"],
            preexec_fn=pipes, close_fds=False, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(given)
        os.close(taken)
        self._count, self._rest, self.events = 0, b"", list[Any]()

    def call(self, method: str, session: str = "", **params: Any) -> Any:
        """One call and its answer; what happens meanwhile is kept in ``events``."""
        self._count += 1
        told = {"id": self._count, "method": method, "params": params}
        os.write(self._out, json.dumps(told | ({"sessionId": session} if session else {})).encode() + b"\0")
        while True:
            message, found, self._rest = self._rest.partition(b"\0")
            if not found:
                part = os.read(self._in, 1 << 16)
                assert part, "the browser is gone"
                self._rest = message + part
                continue
            answer = json.loads(message)
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._out)
        os.close(self._in)


@pytest.mark.browser
@pytest.mark.slow
def test_in_a_browser_a_program_is_typed_and_its_verdict_is_seen(
    service: Service, chromium: Path, tmp_path: Path
) -> None:
    browser = Browser(chromium, tmp_path / "profile")
    try:
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        browser.call("Log.enable", session)
        browser.call("Page.navigate", session, url=f"{service.url}/")

        def run(script: str) -> Any:
            return browser.call("Runtime.evaluate", session, expression=script, returnByValue=True)[
                "result"
            ].get("value")

        until(lambda: run("document.querySelectorAll('#lang option').length") > 3, 30)
        evil = "<img src=x onerror=document.title=1>"
        for fill in (
            "at('lang').value = 'python'", f"at('code').value = {json.dumps(f'print({evil!r} + input())')}",
            "at('stdin').value = '42'", f"at('expected').value = {json.dumps(evil + '42')}",
            "at('run').click()",
        ):  # fmt: skip
            run(fill)
        until(lambda: run("at('verdict').textContent") not in ("running", "none yet"), 20)
        assert run("at('verdict').textContent") == "OK"
        assert run("at('stdout').textContent") == f"{evil}42\n"
        assert run("document.title") == "llmfw sandbox" and not run("document.images.length")
        told = [one["params"] for one in browser.events if one.get("method") == "Log.entryAdded"]
        assert not told, told  # nothing was refused by the page's policy
    finally:
        browser.close()
