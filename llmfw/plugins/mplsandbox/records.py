"""What the sandbox is asked for and what it answers; plain values, all of them JSON (arXiv 2410.23074)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Verdict = Literal["OK", "WA", "CE", "RE", "TLE", "MLE", "OLE", "SV", "IE"]
"""Accepted, wrong answer, compile error, runtime error, time, memory or output limit exceeded, sandbox
violation (processes, disk, forbidden output files), internal error of the sandbox. They come from exit
status, limits and comparison, never from words that a program prints.
"""
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
Level = Literal["paranoid", "strict", "unsafe"]
CheckerName = Literal["exact", "tokens", "float", "unordered", "program"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a job may use; all its processes together, but for ``files``.

    Attributes:
        seconds: CPU time, s. Wall time is bounded by ``wall``.
        wall: wall time, s; None: five times ``seconds`` and one second more.
        memory: MiB of anonymous and shared memory; a language's runtime gets what it needs itself on top.
        processes: alive at once, threads among them; a runtime's own on top, likewise.
        output: bytes of stdout and of stderr, each.
        disk: MiB that it may write.
        files: open at once, of each process.
    """

    seconds: float = 10.0
    wall: float | None = None
    memory: int = 512
    processes: int = 64
    output: int = 65536
    disk: int = 64
    files: int = 256

    @property
    def wall_seconds(self) -> float:
        """The bound of wall time that holds, s."""
        return 5 * self.seconds + 1 if self.wall is None else self.wall


@dataclass(frozen=True, kw_only=True)
class Checker:
    """How a program's stdout is compared with what is expected.

    Attributes:
        name: ``exact`` byte for byte; ``tokens`` split at white space; ``float`` tokens, numbers within
            ``tolerance`` (absolute or relative); ``unordered`` lines of tokens in any order; ``program``:
            ``code``, run in a sandbox of its own, decides.
        code: of the checker program. It finds the files ``input``, ``expected`` and ``output`` and accepts
            by exit code 0; 1 is a wrong answer, anything else an internal error.
    """

    name: CheckerName = "tokens"
    tolerance: float = 1e-6
    code: str = ""
    lang: str = "python"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One test. ``stdin`` mode: ``stdin`` against ``expected``; ``call`` mode: ``args`` and ``kwargs`` (JSON
    values) against the value ``expected``. ``expected`` None: it need only end with exit code 0.
    """

    stdin: str | bytes = ""
    expected: Any = None
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    checker: Checker | None = None
    limits: Limits | None = None


@dataclass(frozen=True, kw_only=True)
class Request:
    """One program and its tests.

    Attributes:
        code: source text; ``lang`` AUTO: the language is identified, with the help of a file's ``name``.
        mode: ``stdin``: each case is a run of the program. ``call``: each case calls ``entry_point`` in a
            process of its own; arguments go in and values come out as JSON over a pipe, the expected values
            stay outside. ``tests``: ``setup`` and ``tests`` are a program that calls ``entry_point`` (or
            ``candidate``); it runs in a sandbox beside the candidate's and reaches it by values alone.
        files: relative path -> content, beside the program in every case.
        outputs: relative paths of files that are brought back from each case (regular ones only).
        compile_limits: of the compiler; None: the language's.
    """

    code: str
    lang: str = "AUTO"
    name: str = ""
    mode: Literal["stdin", "call", "tests"] = "stdin"
    cases: Sequence[Case] = ()
    entry_point: str = ""
    setup: str = ""
    tests: str = ""
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    outputs: Sequence[str] = ()
    checker: Checker = Checker()
    limits: Limits = Limits()
    compile_limits: Limits | None = None
    id: str = ""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a job used: seconds of wall and CPU time, peak MiB of all its processes together as sampled,
    and of the largest process as the kernel counted it; most tasks seen at once.
    """

    wall: float = 0.0
    cpu: float = 0.0
    memory: float = 0.0
    largest: float = 0.0
    tasks: int = 0


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A job that ended: the compiler's, or a program's on one case.

    ``code`` is the exit code, None where a signal or a limit ended it; ``detail`` says which limit, signal or
    rule decided.
    """

    verdict: Verdict
    detail: str = ""
    code: int | None = None
    signal: int | None = None
    stdout: str = ""
    stderr: str = ""
    usage: Usage = Usage()
    outputs: Mapping[str, bytes] = field(default_factory=dict)
    value: Any = None
    """What the call returned, in ``call`` mode."""


@dataclass(frozen=True, kw_only=True)
class Isolation:
    """What held a program: the level asked for, the backend and the features that were on."""

    level: Level
    backend: str
    features: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def sandboxed(self) -> bool:
        """Whether anything held it at all."""
        return self.backend != "none"


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a request. ``verdict`` is the worst over the cases."""

    lang: str
    confidence: float
    verdict: Verdict
    compile: Stage | None
    cases: tuple[Stage, ...]
    isolation: Isolation
    version: str
    id: str = ""

    @property
    def passed(self) -> int:
        """Cases that were accepted."""
        return sum(case.verdict == "OK" for case in self.cases)

    @property
    def total(self) -> int:
        """All cases."""
        return len(self.cases)

    @property
    def pass_rate(self) -> float:
        """Share of cases that were accepted; without cases 1.0 if it compiled and 0.0 if not."""
        return self.passed / self.total if self.cases else float(self.verdict == "OK")
