"""Programs in, verdicts out: the service that rewards, verifiers and other plugins ask for.

from llmfw.plugins.mplsandbox.executor import Sandbox
sandbox = Sandbox()
print(sandbox.run("print(int(input()) * 2)", cases=[Case(stdin="4", expected="8")]).verdict)
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from llmfw import Execution, ExecutionLimits, LlmfwError

from .checkers import accepts, same_value
from .identify import identify
from .isolation.backends import Backend, backend
from .isolation.filesystem import ENVIRONMENT
from .isolation.job import Command, Job, Outcome
from .languages import DATA, PYTHON_SYNTAX, Language, language
from .pool import Pool
from .records import Case, Checker, Isolation, Level, Limits, Request, Result, Stage, Verdict
from .values import frame, frames, plain
from .verdicts import stage_of, worst

VERSION = "1"
"""Goes into results and cache keys; raised when verdicts may change."""
_HEARD = 1 << 20
"""Bytes of a value that come back."""
Files = Mapping[str, tuple[bytes, int]]
CALLABLE: Mapping[str, tuple[str, ...]] = {
    "stdin": (),
    "call": ("python", "javascript", "typescript"),
    "tests": ("python",),
}
"""Languages of each mode; none named: all."""


class RequestError(LlmfwError):
    """A request that no sandbox can carry out (exit code 2)."""

    exit_code = 2


@dataclass(frozen=True, kw_only=True)
class Built:
    """A program that is ready to run: its language, its files and what the compiler said."""

    lang: Language
    confidence: float
    files: Files
    compile: Stage | None
    code: str


class Sandbox:
    """Runs programs that nobody trusts, each in a sandbox of its own; safe to use from several threads.

    Args:
        level: ``strict``, ``paranoid`` or ``unsafe``.
        jobs: programs at once in ``run_many``; None: the processors less one, at least one.
        binds: folders of the host that programs may read, at their own places.
        phrase: for level ``unsafe``.
        name: the backend, one of the level's; None: the first of them that works.

    Raises:
        SandboxUnavailable: this machine can't hold programs as the level asks (exit code 8).
    """

    def __init__(
        self,
        level: Level = "strict",
        *,
        jobs: int | None = None,
        binds: Sequence[str] = (),
        phrase: str = "",
        name: str | None = None,
    ) -> None:
        self._backend: Backend = backend(level, binds=binds, phrase=phrase, name=name)
        self.jobs = jobs or max(1, len(os.sched_getaffinity(0)) - 1)

    @property
    def isolation(self) -> Isolation:
        """What holds its programs."""
        return self._backend.isolation

    def run(self, request: Request | str, **fields: Any) -> Result:
        """Run a request, or code with the fields of one.

        Raises:
            LanguageError: the language isn't known or its tools aren't here.
            RequestError: REQUEST, the request can't be carried out.
        """
        asked = Request(code=request, **fields) if isinstance(request, str) else request
        _check(asked)
        lang, confidence, code = made_out(asked)
        lang.insist()
        asked = replace(asked, code=code)
        built = self._build(asked, lang, confidence)
        if built.compile is not None and built.compile.verdict != "OK":
            failed = tuple(self._broken(built.compile) for _ in self._cases(asked))
            return self._result(asked, built, built.compile.verdict, failed)
        stages: list[Stage] = []
        for case in self._cases(asked):
            stages.append(self._case(asked, built, case))
            if stages[-1].verdict == "RE" and built.compile is None:
                looked = self._look(built)
                built = replace(built, compile=looked)
                if looked.verdict == "CE":
                    stages = [self._broken(looked) for _ in self._cases(asked)]
                    break
        if not stages and built.compile is None:
            built = replace(built, compile=self._look(built))
        found = [stage.verdict for stage in stages] or [built.compile.verdict if built.compile else "OK"]
        return self._result(asked, built, worst(found), tuple(stages))

    def carry_out(self, job: Job) -> Outcome:
        """Run a job that is no request, as analysers do."""
        return self._backend.run(job)

    def run_many(self, requests: Iterable[Request]) -> Iterator[Result]:
        """Run requests side by side; results come in the requests' order, and requests are taken as there is
        room.
        """
        with Pool(self) as pool:
            yield from pool.map(requests)

    def close(self) -> None:
        """End what was started ahead of the next program; without it that ends by itself, two seconds later.
        The sandbox can be used afterwards, too.
        """
        self._backend.close()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _result(self, asked: Request, built: Built, verdict: Verdict, stages: tuple[Stage, ...]) -> Result:
        return Result(
            lang=built.lang.id, confidence=built.confidence, verdict=verdict, compile=built.compile,
            cases=stages, isolation=self.isolation, version=VERSION, id=asked.id,
        )  # fmt: skip

    @staticmethod
    def _broken(compiled: Stage) -> Stage:
        """What becomes of a case whose program wasn't compiled."""
        return Stage(verdict=compiled.verdict, detail=compiled.detail)

    @staticmethod
    def _cases(asked: Request) -> Sequence[Case]:
        return (Case(),) if asked.mode == "tests" else asked.cases

    # Compiling.

    def _build(self, asked: Request, lang: Language, confidence: float) -> Built:
        code = asked.code.encode("utf-8", "surrogatepass")
        mine: dict[str, tuple[bytes, int]] = {lang.file_of(asked.code): (code, 0o644)}
        given = {path: (_bytes(content), 0o644) for path, content in asked.files.items()}
        if not lang.compile:
            return Built(
                lang=lang, confidence=confidence, files={**given, **mine}, compile=None, code=asked.code
            )
        beside = {name: ((DATA / place).read_bytes(), 0o644) for name, place in lang.beside.items()}
        limits = asked.compile_limits or lang.compile_limits()
        outcome = self._backend.run(
            Job(
                commands=[self._command(lang, lang.compile, asked.code, limits)],
                files={**given, **beside, **mine},
                outputs=lang.keeps,
                output=limits.output,
            )
        )
        stage = stage_of(outcome, next(iter(outcome.ends), None), failed="CE")
        if stage.verdict in ("TLE", "MLE", "OLE", "RE"):
            stage = replace(stage, verdict="CE", detail=f"the compiler: {stage.detail}")
        kept = {path: (data, 0o755) for path, data in outcome.outputs.items()}
        if stage.verdict == "OK" and not kept:
            stage = replace(stage, verdict="CE", detail="the compiler left nothing to run")
        return Built(
            lang=lang, confidence=confidence, files={**given, **kept}, code=asked.code,
            compile=replace(stage, outputs={}),
        )  # fmt: skip

    def _command(self, lang: Language, template: tuple[str, ...], code: str, limits: Limits) -> Command:
        env = {**ENVIRONMENT, **lang.environ()}
        return Command(argv=lang.words(template, code, limits.memory), env=env, limits=limits)

    def _look(self, built: Built) -> Stage:
        """The check of the syntax, of languages that aren't compiled: only failed runs need it, so it comes
        after them, in a sandbox of its own that sees the program as it was given.
        """
        lang = built.lang
        limits = lang.at_least(lang.compile_limits())
        if not lang.check:
            return Stage(verdict="OK", detail="there's no check of the syntax")
        if lang.check == (PYTHON_SYNTAX,):
            command = Command(argv=[lang.file], env={}, limits=limits, builtin=PYTHON_SYNTAX)
        else:
            command = self._command(lang, lang.check, built.code, limits)
        outcome = self._backend.run(Job(commands=[command], files=built.files))
        return stage_of(outcome, next(iter(outcome.ends), None), failed="CE")

    # Running.

    def _case(self, asked: Request, built: Built, case: Case) -> Stage:
        limits = built.lang.at_least(case.limits or asked.limits)
        if asked.mode == "tests":
            if not self._backend.live:
                what = f"two sandboxes of {self.isolation.backend} can't talk, as test programs need"
                raise RequestError("REQUEST", what, mend="use mode call, or level strict", key="mode")
            return self._tests(asked, built, limits)
        called = asked.mode == "call"
        command = self._command(built.lang, built.lang.run, built.code, limits)
        files, nonce = built.files, ""
        if called:
            files, command = _driven(built, command)
            nonce = secrets.token_hex(16)
        call = {
            "nonce": nonce, "name": asked.entry_point, "args": [plain(one) for one in case.args],
            "kwargs": {key: plain(one) for key, one in case.kwargs.items()},
        }  # fmt: skip
        outcome = self._backend.run(
            Job(
                commands=[command],
                files=files,
                outputs=asked.outputs,
                stdin=_bytes(case.stdin),
                output=limits.output,
                heard=_HEARD if called else None,
                said=frame(call) if called else b"",
            )
        )
        stage = stage_of(outcome, next(iter(outcome.ends), None))
        if stage.verdict != "OK":
            return stage
        if called:
            return _judge_value(stage, outcome.heard, nonce, case, asked.checker)
        return self._judge(stage, case, case.checker or asked.checker)

    def _judge(self, stage: Stage, case: Case, checker: Checker) -> Stage:
        if case.expected is None:
            return stage
        expected = str(case.expected)
        if checker.name != "program":
            right = accepts(checker, stage.stdout, expected)
            return stage if right else replace(stage, verdict="WA", detail=f"by checker {checker.name}")
        told = self.run(
            Request(
                code=checker.code, lang=checker.lang, cases=[Case()],
                files={"input": case.stdin, "expected": expected, "output": stage.stdout},
            )
        )  # fmt: skip
        end = told.cases[0] if told.cases else told.compile
        if told.verdict == "OK":
            return stage
        if end is not None and end.code == 1:
            return replace(stage, verdict="WA", detail=f"by its checker: {end.stdout.strip()[:200]}")
        words = end.stderr.strip()[-200:] if end is not None else ""
        return replace(stage, verdict="IE", detail=f"its checker failed ({told.verdict}): {words}")

    def _tests(self, asked: Request, built: Built, limits: Limits) -> Stage:
        """The candidate in one sandbox, the test program in another, and pipes between them."""
        answers, answers_in = os.pipe2(os.O_CLOEXEC)
        calls, calls_in = os.pipe2(os.O_CLOEXEC)
        nonce = secrets.token_hex(16)
        files, command = _driven(built, self._command(built.lang, built.lang.run, built.code, limits))
        harness = {
            "main.py": ((DATA / "calls/python_tests.py").read_bytes(), 0o644),
            "__call__.py": ((DATA / "calls/python.py").read_bytes(), 0o644),
        }
        roomy = replace(limits, wall=limits.wall_seconds + 5)
        python = language("python")
        job = {"nonce": nonce, "entry_point": asked.entry_point, "setup": asked.setup, "tests": asked.tests}
        with ThreadPoolExecutor(2) as pool:
            candidate = pool.submit(
                _closing, self._backend.run,
                Job(
                    commands=[command], files=files, output=limits.output,
                    channels=[answers_in, calls],
                ),
                (answers_in, calls),
            )  # fmt: skip
            tests = pool.submit(
                _closing, self._backend.run,
                Job(
                    commands=[self._command(python, python.run, "", roomy)], files=harness,
                    output=limits.output, heard=_HEARD, said=frame(job), channels=[calls_in, answers],
                ),
                (calls_in, answers),
            )  # fmt: skip
            told, heard = candidate.result(), tests.result()
        return _judge_tests(stage_of(told, next(iter(told.ends), None)), heard, nonce)


def _closing(run: Callable[[Job], Outcome], job: Job, fds: Sequence[int]) -> Outcome:
    """Run, and close its ends of the pipes as soon as the sandbox is over: the other side hears that."""
    try:
        return run(job)
    finally:
        for fd in fds:
            os.close(fd)


def _driven(built: Built, command: Command) -> tuple[Files, Command]:
    """A program's files and command with the driver that calls its function."""
    words = list(command.argv)
    if built.lang.id == "python":
        name, place = "__call__.py", "calls/python.py"
    else:
        name, place = "__call__.js", "calls/javascript.js"
    words = [*words[:-1], name, words[-1]]
    files = {**built.files, name: ((DATA / place).read_bytes(), 0o644)}
    return files, replace(command, argv=words)


def _judge_value(stage: Stage, heard: bytes, nonce: str, case: Case, checker: Checker) -> Stage:
    """A call's stage: only a value that bears the call's nonce counts."""
    told = next((one for one in frames(heard) if isinstance(one, dict) and one.get("nonce") == nonce), None)
    if told is None:
        return replace(stage, verdict="WA", detail="it ended without a value")
    if "absent" in told:
        return replace(stage, verdict="RE", detail=f"it has no function {told['absent']}")
    if "raised" in told:
        return replace(stage, verdict="RE", detail=f"raised {told['raised']}: {told.get('words', '')}")
    value = told.get("value")
    if case.expected is None or same_value(value, plain(case.expected), case.checker or checker):
        return replace(stage, value=value)
    return replace(stage, verdict="WA", detail="another value", value=value)


def _judge_tests(stage: Stage, tests: Outcome, nonce: str) -> Stage:
    """The candidate's stage in the light of what the test program said."""
    told = next(
        (one for one in frames(tests.heard) if isinstance(one, dict) and one.get("nonce") == nonce), None
    )
    if told is not None and told.get("passed"):
        return stage if stage.verdict == "OK" else replace(stage, verdict="OK", detail=stage.detail)
    if stage.verdict != "OK":
        return stage
    if told is None:
        end = stage_of(tests, next(iter(tests.ends), None))
        if end.verdict == "IE":
            return replace(stage, verdict="IE", detail=f"the tests: {end.detail}")
        return replace(stage, verdict="WA", detail=f"the tests ended without a verdict ({end.detail})")
    fault = told.get("candidate", "")
    verdict: Verdict = "WA" if fault in ("", "gone", "forged") else "RE"
    return replace(stage, verdict=verdict, detail=str(told.get("why", "")))


def _bytes(content: str | bytes) -> bytes:
    return content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")


def made_out(asked: Request) -> tuple[Language, float, str]:
    """A request's language, how sure that is, and the program itself, without a fence around it.

    Raises:
        RequestError: LANGUAGE-UNKNOWN, it can't be made out.
        LanguageError: nobody knows it.
    """
    if asked.lang.upper() != "AUTO":
        return language(asked.lang), 1.0, asked.code
    guess = identify(asked.code, name=asked.name)
    if guess.lang == "unknown":
        raise RequestError(
            "LANGUAGE-UNKNOWN", "no language could be made out", mend="name it: lang=python, say", key="lang"
        )
    return language(guess.lang), guess.confidence, guess.code


def _check(asked: Request) -> None:
    """Raises RequestError where the request makes no sense."""

    def refuse(what: str, mend: str, key: str) -> RequestError:
        return RequestError("REQUEST", what, mend=mend, key=key)

    for path in (*asked.files, *asked.outputs):
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts or "\0" in path or path.endswith("/"):
            raise refuse(f"{path!r} isn't a relative path below the working folder", "name it so", "files")
    if asked.mode != "stdin" and not asked.entry_point:
        raise refuse(
            f"mode {asked.mode} calls a function, and none is named", "set entry_point", "entry_point"
        )
    if asked.mode == "tests" and not asked.tests.strip():
        raise refuse("there are no tests", "give tests", "tests")
    able = CALLABLE[asked.mode]
    if able and asked.lang.upper() != "AUTO" and language(asked.lang).id not in able:
        raise refuse(f"mode {asked.mode} is for {', '.join(able)}", "use mode stdin", "mode")


_STATUS = {
    "OK": "ok",
    "CE": "compile_error",
    "TLE": "time_limit",
    "MLE": "memory_limit",
    "OLE": "output_limit",
}


class Executor:
    """The service ``CodeExecutor``: one program, its input, what became of it."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox

    def run(
        self, code: str, *, language: str = "python", stdin: str = "", limits: ExecutionLimits | None = None
    ) -> Execution:
        """Run one program to its end or to a limit.

        Raises:
            LlmfwError: SANDBOX-FAILED (exit code 8), the sandbox itself failed.
        """
        asked = limits or ExecutionLimits()
        result = self.sandbox.run(
            Request(
                code=code, lang=language, cases=[Case(stdin=stdin)],
                limits=Limits(
                    seconds=asked.seconds, wall=asked.seconds, memory=asked.memory, output=asked.output,
                    processes=asked.processes,
                ),
            )
        )  # fmt: skip
        stage = result.cases[0] if result.cases and result.verdict != "CE" else result.compile
        assert stage is not None
        if result.verdict == "IE":
            raise SandboxFailed("SANDBOX-FAILED", stage.detail, mend="llmfw sandbox doctor")
        return Execution(
            status=_STATUS.get(result.verdict, "runtime_error"),  # type: ignore[arg-type]
            stdout=stage.stdout, stderr=stage.stderr, exit_code=stage.code, seconds=stage.usage.wall,
            memory=max(stage.usage.memory, stage.usage.largest) or None,
        )  # fmt: skip


class SandboxFailed(LlmfwError):
    """The sandbox itself failed (exit code 8)."""

    exit_code = 8
