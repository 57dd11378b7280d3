"""Files of requests, one JSON object a line, to files of results; what was stopped goes on from there."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any

from llmfw import LlmfwError

from .pool import Pool
from .records import Request, Result
from .wire import Bounds, line_of, parse, request_of, told

_OURS = Bounds(body=1 << 31)
"""A result may be longer than any request."""
_SAFE = 1.0
"""Seconds after which what was written is on the disk."""


class BatchError(LlmfwError):
    """A file of requests or of results that can't be used (exit code 2)."""

    exit_code = 2


class BatchBusy(LlmfwError):
    """Another process writes these results (exit code 9)."""

    exit_code = 9


@dataclass(frozen=True)
class Item:
    """A line of the requests' file.

    Attributes:
        key: the request's id, or the line's number.
        digest: of the line, so that a result isn't taken for another request's.
    """

    line: int
    key: str
    digest: str
    request: Request


@dataclass
class Progress:
    """How far it is."""

    total: int
    kept: int = 0
    done: int = 0
    bad: list[LlmfwError] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> int:
        """Requests that have no result yet."""
        return self.total - self.kept - self.done - len(self.bad)

    def __str__(self) -> str:
        rate = self.done / max(1e-9, time.monotonic() - self.begun)
        told = [f"{self.kept + self.done}/{self.total} done", f"{rate:.1f}/s"]
        if self.left and rate:
            told.append(f"{_time(self.left / rate)} left")
        if self.kept:
            told.append(f"{self.kept} from before")
        if self.bad:
            told.append(f"{len(self.bad)} bad")
        return ", ".join(told)


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


class Batch:
    """One pass over a file of requests, in a pool that is closed at its end.

    Args:
        tell: called now and then with the progress.
        strict: raise at the first bad line, instead of going on with the others.
    """

    def __init__(
        self,
        requests: Path,
        results: Path,
        pool: Pool,
        *,
        strict: bool = False,
        tell: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        self.requests, self.results, self.pool, self.strict, self._tell = (
            requests,
            results,
            pool,
            strict,
            tell,
        )
        self._ended: SimpleQueue[tuple[Item, Future[Result]] | None] = SimpleQueue()
        self._stopping = False

    def stop(self) -> None:
        """Let ``run`` write what has ended, and return; may be called from a signal's handler."""
        self._stopping = True
        self._ended.put(None)

    def _is_stopping(self) -> bool:
        return self._stopping

    def run(self) -> Progress:
        """Run what has no result yet. -> What was done; ``bad`` holds the lines that couldn't be carried out.

        Raises:
            BatchError: a file can't be read, a line of results is damaged or of another request.
            BatchBusy: BATCH-BUSY.
        """
        with _opened(self.requests) as given, _locked(self.results) as out:
            seen = _results(out, self.results)
            progress = Progress(total=sum(1 for line in given if line.strip()))
            given.seek(0)
            self._run(_items(given, self.requests), seen, out, progress)
            return progress

    def _run(
        self, items: Iterator[Item | LlmfwError], seen: dict[str, str], out: IO[bytes], progress: Progress
    ) -> None:
        writer = _Writer(out)
        flying, places = 0, dict[str, int]()
        window = self.pool.jobs + min(self.pool.waiting, self.pool.jobs)
        try:
            for item in items:
                if self._is_stopping():
                    break
                if isinstance(item, Item):
                    item = self._placed(item, places)
                if isinstance(item, LlmfwError):
                    self._bad(item, progress)
                    continue
                if (digest := seen.get(item.key)) is not None:
                    self._same(item, digest)
                    progress.kept += 1
                    continue
                while flying >= window and not self._is_stopping():
                    flying -= self._take(writer, progress)
                if self._is_stopping():
                    break
                self._send(item)
                flying += 1
            while flying and not self._is_stopping():
                flying -= self._take(writer, progress)
        finally:
            self.pool.close()
            try:
                with suppress(Empty):  # what ended in the meantime counts
                    while True:
                        self._write(self._ended.get_nowait(), writer, progress)
            finally:
                writer.safe()
                self._tell(progress)

    def _send(self, item: Item) -> None:
        self.pool.wait_for_room()
        future = self.pool.submit(item.request)
        future.add_done_callback(lambda ended: self._ended.put((item, ended)))

    def _take(self, writer: _Writer, progress: Progress) -> int:
        """Write a result that comes within a while. -> Whether one came."""
        with suppress(Empty):
            return self._write(self._ended.get(timeout=0.2), writer, progress)
        writer.tick()
        self._tell(progress)
        return 0

    def _write(self, ended: tuple[Item, Future[Result]] | None, writer: _Writer, progress: Progress) -> int:
        if ended is None:
            return 0
        item, future = ended
        try:
            row = told(future.result())
        except CancelledError:
            return 1
        except Exception as error:
            self._bad(self._named(error, item), progress)
            return 1
        row.update(id=item.key, line=item.line, of=item.digest)
        writer.write(line_of(row).encode() + b"\n")
        progress.done += 1
        self._tell(progress)
        return 1

    def _named(self, error: Exception, item: Item) -> LlmfwError:
        """What became of a line, with its place."""
        if isinstance(error, LlmfwError):
            code, what, mend, key = error.code, error.what, error.mend, error.key
        else:
            code, what, mend, key = (
                "FAILED",
                f"{type(error).__name__}: {error}",
                "report it, it's a bug",
                None,
            )
        return BatchError(code, what, mend=mend, file=self.requests, line=item.line, key=key)

    def _placed(self, item: Item, places: dict[str, int]) -> Item | LlmfwError:
        """The item, unless its id was there before."""
        if (first := places.setdefault(item.key, item.line)) == item.line:
            return item
        return BatchError(
            "BATCH-ID", f"line {first} has the same id: {item.key!r}", mend="give each request its own",
            file=self.requests, line=item.line, key="id",
        )  # fmt: skip

    def _same(self, item: Item, digest: str) -> None:
        if digest != item.digest:
            raise BatchError(
                "BATCH-CHANGED", f"{self.results} holds a result of another request for {item.key!r}",
                mend="name another file for the results", file=self.requests, line=item.line,
            )  # fmt: skip

    def _bad(self, error: LlmfwError, progress: Progress) -> None:
        progress.bad.append(error)
        if self.strict and not self._is_stopping():
            self._stopping = True
            raise error


def _opened(file: Path) -> IO[bytes]:
    try:
        return file.open("rb")
    except OSError as error:
        raise BatchError(
            "BATCH-IN", f"can't be read: {error.strerror}", mend="name a file", file=file
        ) from error


def _locked(file: Path) -> IO[bytes]:
    """The results' file, for reading and appending, held against other processes."""
    try:
        fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        what = f"can't be written: {error.strerror}"
        raise BatchError(
            "BATCH-OUT", what, mend="name a file in a folder that is there", file=file
        ) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise BatchBusy(
            "BATCH-BUSY",
            "another process writes these results",
            mend="wait for it, or name another file",
            file=file,
        ) from None
    return os.fdopen(fd, "r+b")


def _results(out: IO[bytes], file: Path) -> dict[str, str]:
    """Key -> digest of the results that are there; a torn last line is cut off, and what follows is added."""
    seen: dict[str, str] = {}
    end = 0
    for number, line in enumerate(out, start=1):
        try:
            row = parse(line, bounds=_OURS, file=file, line=number)
            found = {str(row["id"]): str(row["of"])}
            whole = line.endswith(b"\n")
        except (LlmfwError, KeyError, TypeError) as error:
            if out.read(1):
                raise BatchError(
                    "BATCH-OUT", "this is no result", mend="remove the line, or name another file", file=file,
                    line=number,
                ) from error  # fmt: skip
            whole = False
        if not whole:
            break
        seen.update(found)
        end += len(line)
    out.seek(end)
    out.truncate()
    return seen


def _items(given: IO[bytes], file: Path) -> Iterator[Item | LlmfwError]:
    for number, line in enumerate(given, start=1):
        if not (text := line.strip()):
            continue
        try:
            request = request_of(parse(text, file=file, line=number), file=file, line=number)
        except LlmfwError as error:
            yield error
            continue
        yield Item(number, request.id or str(number), hashlib.sha256(text).hexdigest()[:16], request)


class _Writer:
    """Lines to a file, on the disk every second."""

    def __init__(self, out: IO[Any]) -> None:
        self._out, self._safe = out, time.monotonic()

    def write(self, line: bytes) -> None:
        """Write a line."""
        self._out.write(line)
        self.tick()

    def tick(self) -> None:
        """Look at the clock."""
        if time.monotonic() - self._safe >= _SAFE:
            self.safe()

    def safe(self) -> None:
        """Bring all to the disk."""
        self._out.flush()
        os.fsync(self._out.fileno())
        self._safe = time.monotonic()
