"""Running an analyser in the sandbox: whether it's there, once over a program, or once a case."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from weakref import WeakKeyDictionary

from ..executor import VERSION, Sandbox
from ..isolation.filesystem import ENVIRONMENT
from ..isolation.job import Command, Job, Outcome
from ..languages import DATA, Language, which
from ..records import Case, Limits, Request
from ..values import frame, plain
from ..verdicts import stage_of
from .table import PLACE, Analyser, filled
from .untrusted import REPORT, clean, words

Files = Mapping[str, tuple[bytes, int]]
_DRIVERS = {
    "python": ("__call__.py", "calls/python.py"),
    "javascript": ("__call__.js", "calls/javascript.js"),
    "typescript": ("__call__.js", "calls/javascript.js"),
}
"""Programs that call one function of another."""
_WHATEVER = ("/bin/sh", "-c", '"$@" >/dev/null 2>&1; exit 0', "sh")
"""Runs a program whose words and exit code don't matter; the next command begins however it ended."""
_DISK = 128


class Failed(Exception):
    """An analyser that ran and broke, in its words."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A program under analysis, where it's analysed, the folder of tools, and CPU seconds for each."""

    sandbox: Sandbox
    request: Request
    lang: Language
    tools: str
    seconds: float
    said: dict[object, Future[str]] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)

    @property
    def files(self) -> dict[str, tuple[bytes, int]]:
        """The program and the files beside it."""
        code = self.request.code
        beside = {path: (_bytes(content), 0o644) for path, content in self.request.files.items()}
        return beside | {self.lang.file_of(code): (_bytes(code), 0o644)}

    @property
    def cases(self) -> Sequence[Case]:
        """The runs of the program."""
        return (Case(),) if self.request.mode == "tests" or not self.request.cases else self.request.cases


def _bytes(content: str | bytes) -> bytes:
    return content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")


# Is it there?

_VERSIONS: WeakKeyDictionary[Sandbox, dict[str, str | None]] = WeakKeyDictionary()
_PYPI = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"


def version(subject: Subject, analyser: Analyser) -> str | None:
    """What an analyser calls itself, asked inside the sandbox once; None: it isn't there."""
    known = _VERSIONS.setdefault(subject.sandbox, {})
    key = f"{analyser.id} {subject.lang.id} {subject.tools}"
    if key not in known:
        known[key] = _version(subject, analyser)
    return known[key]


def missing(subject: Subject, analyser: Analyser) -> list[str]:
    """Programs and files of the system that it needs and that aren't here."""
    if analyser.parser == "usage":
        return list(subject.lang.missing())
    first = [one[0] for one in (*analyser.setup, analyser.command, analyser.after) if one]
    names = [*analyser.needs, *(name for name in first if "/" not in name and "{" not in name)]
    return [name for name in names if not (Path(name).exists() if name.startswith("/") else which(name))]


def _version(subject: Subject, analyser: Analyser) -> str | None:
    if missing(subject, analyser):
        return None
    if analyser.parser == "usage":
        return VERSION
    template = analyser.version or subject.lang.version
    if analyser.pypi:
        template = ("python3", "-c", _PYPI, analyser.pypi)
    limits = Limits(seconds=20, wall=60, memory=analyser.memory, files=1024)
    argv = filled(template, subject.lang, "", subject.tools, limits.memory)
    if which(argv[0]) is None and not Path(argv[0]).exists():
        return None
    env = {**ENVIRONMENT, **subject.lang.environ(), **analyser.environ(subject.tools)}
    outcome = subject.sandbox.carry_out(Job(commands=[Command(argv=argv, env=env, limits=limits)]))
    said = outcome.stdout.decode("utf-8", "replace") + outcome.stderr.decode("utf-8", "replace")
    if not outcome.ends or outcome.ends[0].status or outcome.ends[0].why:
        return None
    lines = [line for line in said.splitlines() if line.strip()]
    found = next((match for line in lines if (match := re.search(r"\d+(\.\d+)+[\w.+~-]*", line[:300]))), None)
    return found.group() if found else words(lines[0] if lines else "", 60)


# Once over the program.


def _limits(subject: Subject, analyser: Analyser) -> Limits:
    seconds = min(analyser.seconds, subject.seconds)
    return Limits(
        seconds=seconds, wall=3 * seconds + 5, memory=analyser.memory, processes=64,
        output=REPORT, disk=_DISK, files=1024,
    )  # fmt: skip


def _environ(subject: Subject, analyser: Analyser) -> dict[str, str]:
    return {**ENVIRONMENT, **subject.lang.environ(), **analyser.environ(subject.tools)}


def _command(
    subject: Subject,
    analyser: Analyser,
    template: Sequence[str],
    *,
    program: Sequence[str] = (),
    quiet: bool = False,
) -> Command:
    argv = filled(template, subject.lang, subject.request.code, subject.tools, analyser.memory, program)
    return Command(argv=argv, env=_environ(subject, analyser), limits=_limits(subject, analyser), quiet=quiet)


def once(subject: Subject, analyser: Analyser) -> str:
    """What an analyser writes about the program; entries of one command share one run of it.

    Raises:
        Failed: it broke, or a command before it did.
    """
    key = (analyser.setup, analyser.command, analyser.scripts, analyser.beside, analyser.report)
    with subject.lock:
        mine = key not in subject.said
        future = subject.said.setdefault(key, Future())
    if mine:
        try:
            future.set_result(_once(subject, analyser))
        except BaseException as error:
            future.set_exception(error)
    return future.result()


def _once(subject: Subject, analyser: Analyser) -> str:
    before = [_command(subject, analyser, one, quiet=True) for one in analyser.setup]
    outputs = (analyser.report,) if analyser.report not in ("", "stderr", "both") else ()
    job = Job(
        commands=[*before, _command(subject, analyser, analyser.command)],
        files={**subject.files, **analyser.files()}, outputs=outputs, output=REPORT,
    )  # fmt: skip
    outcome = subject.sandbox.carry_out(job)
    _insist(outcome, len(job.commands), analyser.exits)
    return _text(outcome, analyser.report)


def _text(outcome: Outcome, report: str) -> str:
    if report in outcome.outputs:
        data = outcome.outputs[report]
    elif report == "stderr":
        data = outcome.stderr
    elif report == "both":
        data = outcome.stdout + b"\n" + outcome.stderr
    elif report:
        why = outcome.refused.get(report, "")
        raise Failed(f"the program doesn't begin, or ended before a report could be written ({why})")
    else:
        data = outcome.stdout
    if len(data) > REPORT:
        raise Failed(f"its report has more than {REPORT >> 20} MiB")
    return data.decode("utf-8", "replace")


def _insist(outcome: Outcome, commands: int, exits: Sequence[int] = (0,)) -> None:
    """Raises Failed unless all commands ran and the last ended with one of these exit codes."""
    end = outcome.ends[-1] if outcome.ends else None
    stage = stage_of(outcome, end)
    if len(outcome.ends) == commands and (stage.code in exits or stage.verdict == "OK"):
        return
    said = clean(stage.stderr, REPORT).strip() or clean(stage.stdout, REPORT).strip()
    raise Failed(words(f"{stage.detail}: {said[:200]} {said[200:][-200:]}" if said else stage.detail))


# Once a case.


def each(subject: Subject, analyser: Analyser, most: int) -> list[str | Failed]:
    """What a tracer writes about each case, at most ``most``; Failed where a case left no report.

    Raises:
        Failed: the program couldn't be made ready, or can't be called.
    """
    files: dict[str, tuple[bytes, int]] = {**subject.files, **analyser.files()}
    if analyser.setup:
        files |= _made(subject, analyser, files)
    return [_case(subject, analyser, files, case) for case in subject.cases[:most]]


def _made(subject: Subject, analyser: Analyser, files: Files) -> dict[str, tuple[bytes, int]]:
    commands = [_command(subject, analyser, one, quiet=True) for one in analyser.setup]
    outcome = subject.sandbox.carry_out(
        Job(commands=commands, files=files, outputs=analyser.keeps, output=REPORT)
    )
    _insist(outcome, len(commands))
    return {path: (data, 0o755) for path, data in outcome.outputs.items()}


def _case(subject: Subject, analyser: Analyser, files: Files, case: Case) -> str | Failed:
    mode, name = subject.request.mode, subject.lang.file_of(subject.request.code)
    name = "main.js" if subject.lang.id == "typescript" else name
    program, more = [name], dict(files)
    if mode == "call":
        if subject.lang.id not in _DRIVERS:
            raise Failed(f"functions of {subject.lang.name} can't be called")
        driver, place = _DRIVERS[subject.lang.id]
        program, more[driver] = [driver, name], ((DATA / place).read_bytes(), 0o644)
    elif mode == "tests":
        program = [f"{PLACE}/python_tests.py", name]
        more[program[0]] = ((DATA / "analysis/python_tests.py").read_bytes(), 0o644)
        tests = {key: getattr(subject.request, key) for key in ("entry_point", "setup", "tests")}
        more[f"{PLACE}/tests.json"] = (json.dumps(tests).encode(), 0o644)
    run = _command(subject, analyser, analyser.command, program=program)
    env = {key: value for key, value in run.env.items() if key != "PYTHONSAFEPATH"}
    limits = _roomier(subject, analyser, case)
    run = Command(argv=[*_WHATEVER, *run.argv], env=env, limits=limits)
    after = [_command(subject, analyser, analyser.after, program=program)] if analyser.after else []
    call = {
        "nonce": "", "name": subject.request.entry_point, "args": [plain(one) for one in case.args],
        "kwargs": {key: plain(one) for key, one in case.kwargs.items()},
    }  # fmt: skip
    outputs = (analyser.report,) if analyser.report else ()
    job = Job(
        commands=[run, *after], files=more, outputs=outputs, output=REPORT,
        stdin=_bytes(case.stdin), heard=REPORT if mode == "call" else None,
        said=frame(call) if mode == "call" else b"",
    )  # fmt: skip
    outcome = subject.sandbox.carry_out(job)
    try:
        _insist(outcome, len(job.commands))
        return _text(outcome, analyser.report)
    except Failed as failed:
        return failed


def _roomier(subject: Subject, analyser: Analyser, case: Case) -> Limits:
    """A case's limits, widened by what tracing costs."""
    limits = subject.lang.at_least(case.limits or subject.request.limits)
    return Limits(
        seconds=min(limits.seconds * analyser.slow, 120.0),
        wall=min(limits.wall_seconds * analyser.slow, 240.0),
        memory=limits.memory + analyser.memory, processes=max(64, limits.processes), output=REPORT,
        disk=max(_DISK, limits.disk), files=max(1024, limits.files),
    )  # fmt: skip
