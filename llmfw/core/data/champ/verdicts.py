"""All verdicts at once, in a process of their own, kept in the user's cache.

Computer algebra runs in a child: no signal or thread of ours is touched, and were an expression ever to hang
or to eat all memory, the child would be ended and the problem's answers be unsure.
"""

from __future__ import annotations

import importlib.util
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llmfw.core.cache import cached_json
from llmfw.core.data.champ.judge import VERSION, Verdict, judge
from llmfw.core.data.champ.source import Problem
from llmfw.core.errors import UsageError

_SECONDS = 300.0
"""Patience with the answers to one problem; they take a twentieth of a second."""
_COMMAND = "from llmfw.core.data.champ.verdicts import serve; serve()"


def verdicts(problems: Sequence[Problem], package: Mapping[str, Any]) -> dict[str, dict[str, Verdict]]:
    """problem id -> summary -> verdict, for every summary of these problems."""
    if importlib.util.find_spec("math_verify") is None:
        raise UsageError(
            "MATH-VERIFY",
            "judging answers needs math-verify",
            key="data.name",
            mend='run: python -m pip install "llmfw[demo]"',
        )
    kept: dict[str, dict[str, Verdict]] = cached_json(
        "verdicts", f"champ-{str(package['sha256'])[:12]}-{VERSION}", lambda: _judge_all(problems)
    )
    return kept


def _judge_all(problems: Sequence[Problem]) -> dict[str, dict[str, Verdict]]:
    from rich.console import Console
    from rich.progress import Progress

    found: dict[str, dict[str, Verdict]] = {}
    with Progress(console=Console(stderr=True), transient=True) as progress, _Child() as child:
        task = progress.add_task("champ: judge answers (once)", total=len(problems))
        for problem in problems:
            summaries = sorted({answer.summary for answer in problem.answers})
            found[problem.id] = dict(zip(summaries, child.ask(problem, summaries), strict=True))
            progress.advance(task)
    return found


class _Child:
    """A process that judges; started anew when it doesn't answer."""

    def __init__(self, seconds: float = _SECONDS) -> None:
        self.seconds = seconds
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str] = queue.Queue()

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def ask(self, problem: Problem, summaries: list[str]) -> list[Verdict]:
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps([problem.answer, problem.text, summaries]) + "\n")
            process.stdin.flush()
            answer: list[Verdict] = json.loads(self._lines.get(timeout=self.seconds))
        except (queue.Empty, OSError, ValueError):
            self._end()
            return ["unsure"] * len(summaries)
        return answer

    def _start(self) -> subprocess.Popen[str]:
        self._lines = queue.Queue()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )
        threading.Thread(target=_forward, args=(self._process.stdout, self._lines), daemon=True).start()
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None


def _forward(lines: Iterable[str], into: queue.Queue[str]) -> None:
    for line in lines:
        into.put(line)
    into.put("")  # the child ended: what is waited for isn't json


def serve() -> None:
    """The child's loop: [gold answer, problem, summaries] a line in, verdicts a line out."""
    for line in sys.stdin:
        answer, problem, summaries = json.loads(line)
        print(json.dumps([judge(answer, problem, summary) for summary in summaries]), flush=True)
