"""Results kept on disk: the same program under the same limits, with the same tools, runs once.

cached = Cached(Sandbox(), cache_folder())
cached.run("print(1)", lang="python", cases=[Case(expected="1")])   # the second time from the disk
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

from llmfw import LlmfwError

from .executor import VERSION
from .identify import identify
from .keep import Keep
from .languages import LanguageError, language
from .pool import Pool, Runs
from .records import Isolation, Request, Result, Stage
from .toolchains import ToolchainError, toolchain_version
from .wire import line_of, parse, result_of, told, told_request

KEPT = ("OK", "WA", "CE", "RE", "SV", "OLE")
"""Verdicts that come again."""
LIMITS = ("TLE", "MLE")
"""Verdicts that another machine, or another moment, may change."""
_NAME = "sandbox"


class CacheError(LlmfwError):
    """The cache's folder can't be used (exit code 2)."""

    exit_code = 2


def cache_folder() -> Path:
    """``$LLMFW_SANDBOX_CACHE``, else ``sandbox`` in llmfw's cache. It needn't exist."""
    if own := os.environ.get("LLMFW_SANDBOX_CACHE"):
        return Path(own).expanduser().absolute()
    return _cache_root() / _NAME


def _cache_root() -> Path:
    """Where docs/caches.md says that llmfw's cache lies."""
    own, xdg = os.environ.get("LLMFW_CACHE"), os.environ.get("XDG_CACHE_HOME")
    root = Path(own) if own else (Path(xdg) if xdg else Path.home() / ".cache") / "llmfw"
    return root.expanduser().absolute()


class Cached:
    """A sandbox with a cache around it; safe to use from several threads, and by several processes at once.

    A request's key holds all that may change its result: code, tests, files, checker, limits, the executor's
    version, what holds the program, the language's row of the table and the versions of its tools. Its ``id``
    isn't part of it, and of ``name`` only what the language was made out to be. Equal requests that come
    while one runs wait for it, also those of other processes.

    Args:
        folder: None: ``cache_folder()``.
        keep_limits: keep time and memory limits that were exceeded, too; they may fit on a faster machine.
        most: bytes of all entries; beyond them those go that were used longest ago.
        also: more that results depend on, such as the folders of ``binds``; what lies in these isn't seen.

    Raises:
        CacheError: CACHE, the folder can't be made or written.
    """

    def __init__(
        self,
        sandbox: Runs,
        folder: str | Path | None = None,
        *,
        keep_limits: bool = False,
        most: int = 1 << 30,
        also: Iterable[str] = (),
    ) -> None:
        self.sandbox, self.keep_limits, self.also = sandbox, keep_limits, tuple(also)
        place = cache_folder() if folder is None else Path(folder)
        try:
            self._keep = Keep(place / "results", most)
            if place == _cache_root() / _NAME:  # llmfw cache lists and removes what has a mark
                marks = _cache_root() / ".llmfw"
                marks.mkdir(exist_ok=True)
                (marks / _NAME).touch()
        except OSError as error:
            raise CacheError(
                "CACHE", f"the cache's folder can't be written ({error.strerror})", file=place,
                mend="set LLMFW_SANDBOX_CACHE to a folder that can be",
            ) from error  # fmt: skip
        self.hits = self.misses = 0
        self._lock = Lock()
        self._flying: dict[str, Future[Result]] = {}

    @property
    def isolation(self) -> Isolation:
        """What holds its programs."""
        return self.sandbox.isolation

    @property
    def jobs(self) -> int:
        """Programs at once in ``run_many``."""
        return self.sandbox.jobs

    def run(self, request: Request | str, **fields: Any) -> Result:
        """``Sandbox.run``, or what it said of an equal request before."""
        asked = Request(code=request, **fields) if isinstance(request, str) else request
        key = self._key(asked)
        if key is None:
            return self.sandbox.run(asked)
        return replace(self._once(key, replace(asked, id="")), id=asked.id)

    def run_many(self, requests: Iterable[Request]) -> Iterator[Result]:
        """Run requests side by side; results come in the requests' order."""
        with Pool(self) as pool:
            yield from pool.map(requests)

    def _key(self, asked: Request) -> str | None:
        """What an equal request has, too; None: this one has none, the sandbox shall say why."""
        lang, guess = asked.lang, ""
        if lang.upper() == "AUTO":
            found = identify(asked.code, name=asked.name)
            lang, guess = found.lang, repr(found)
        if lang == "unknown":
            return None
        used = {lang} | {one.lang for one in _checkers(asked) if one.name == "program"}
        used |= {"python"} if asked.mode == "tests" else set()
        try:
            rows = {language(name).id: language(name) for name in used}
            tools = {name: [repr(row), toolchain_version(self.sandbox, name)] for name, row in rows.items()}
            row = told_request(replace(asked, id="", name="", lang=language(lang).id))
            whole = {
                "request": row, "tools": tools, "executor": VERSION, "isolation": repr(self.isolation),
                "guess": guess, "also": list(self.also),
            }  # fmt: skip
            return hashlib.sha256(_canonical(whole)).hexdigest()
        except (ToolchainError, LanguageError, TypeError, ValueError, RecursionError):
            return None

    def _once(self, key: str, asked: Request) -> Result:
        """From the disk, from another thread that runs it, or run now."""
        with self._lock:
            first = (flying := self._flying.get(key)) is None
            if flying is None:
                flying = self._flying[key] = Future()
        if not first:
            found = flying.result()
            self._count(hit=True)
            return found
        try:
            found = self._found(key) or self._made(key, asked)
        except BaseException as error:
            flying.set_exception(error)
            raise
        else:
            flying.set_result(found)
            return found
        finally:
            with self._lock:
                del self._flying[key]

    def _made(self, key: str, asked: Request) -> Result:
        with self._keep.alone(key) as waited:
            if waited and (found := self._found(key)) is not None:
                return found
            self._count(hit=False)
            result = self.sandbox.run(asked)
            if self._lasting(asked, result):
                with suppress(OSError):  # a full disk costs the entry, not the result
                    self._keep.put(key, line_of(told(result)).encode())
            return result

    def _found(self, key: str) -> Result | None:
        data = self._keep.get(key)
        if data is None:
            return None
        try:
            result = result_of(parse(data))
        except LlmfwError:  # of another version of these records
            return None
        if not self.keep_limits and any(stage.verdict in LIMITS for stage in result.cases):
            return None
        self._count(hit=True)
        return result

    def _count(self, *, hit: bool) -> None:
        with self._lock:
            self.hits, self.misses = self.hits + hit, self.misses + (not hit)

    def _lasting(self, asked: Request, result: Result) -> bool:
        """Whether it would come out the same again."""
        stages = [*result.cases, *([] if result.compile is None else [result.compile])]
        fine = (*KEPT, *LIMITS) if self.keep_limits else KEPT
        if result.verdict not in fine or any(one.verdict not in fine for one in stages):
            return False
        if result.verdict == "CE":
            return result.compile is not None and result.compile.code is not None  # else a limit ended it
        return not any(_by_chance(asked, one) for one in stages)


def _by_chance(asked: Request, stage: Stage) -> bool:
    """Whether the machine may have had a hand in it: a kill from outside, tests that a limit ended."""
    if stage.verdict == "RE" and stage.signal == 9:
        return True
    return asked.mode == "tests" and stage.verdict == "WA" and "without a verdict" in stage.detail


def _checkers(asked: Request) -> list[Any]:
    return [asked.checker, *(case.checker for case in asked.cases if case.checker is not None)]


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
