"""The run's journal: one json object a line, only ever appended to. It's the truth; MLflow is told from it.

Lines (``t`` tells the kind, ``wall`` is seconds since 1970, ``mono`` the machine's monotonic clock in
seconds):

    {"t": "journal", "version": 1, ...}                                       first line of each process that
    writes {"t": "metrics", "step": 10, "stage": "train", "values": {"loss": 0.69}, ...}
    {"t": "rewind", "step": 8, ...}                                           the run goes on from step 8
    {"t": ANY OTHER KIND, ...}                                                an event; its fields are the
    caller's

A number that isn't finite is written as "NaN", "Infinity" or "-Infinity", so that each line is plain json.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, SupportsFloat

from llmfw.core.errors import ResourceError, UsageError
from llmfw.core.failpoints import failpoint

VERSION = 1
DURABLE = frozenset({"rewind", "checkpoint", "status", "verdict"})
"""Events that survive a power loss once ``event`` has returned; others survive the death of the process.
"""

_RESERVED = frozenset({"t", "wall", "mono"})
_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class Journal:
    """Appends to ``path``; a line is one write, so a killed process loses the line it was writing.

    A torn last line (no newline at its end) is cut off when the journal is opened again. Safe to use from
    several threads of one process; two processes must not write one journal (the run folder's lock sees to
    that).

    Raises:
        UsageError: the file can't be written, or was written by a newer version.
        ResourceError: the disk is full.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        _check_version(self.path)
        self._mend()
        self._write({"t": "journal", "version": VERSION, "pid": os.getpid()})

    def metrics(self, step: int, values: Mapping[str, SupportsFloat], stage: str = "train") -> None:
        """Write one optimizer step's values; a ``stage`` other than train becomes a prefix of the names."""
        self._write(
            {
                "t": "metrics",
                "step": int(step),
                "stage": stage,
                "values": {name: encode(value) for name, value in values.items()},
            }
        )

    def event(self, kind: str, *, durable: bool = False, **fields: Any) -> None:
        """Write an event; ``fields`` are json. Kinds in ``DURABLE`` are flushed to the disk."""
        if kind in ("journal", "metrics") or not _RESERVED.isdisjoint(fields):
            raise ValueError(f"an event can't be of kind {kind!r} or hold a field named {sorted(_RESERVED)}")
        self._write({"t": kind, **fields}, durable=durable or kind in DURABLE)

    def rewind(self, step: int) -> None:
        """Say that the run goes on from ``step``: what was written for later steps no longer counts."""
        self.event("rewind", step=int(step))

    def flush(self, durable: bool = False) -> None:
        """Lines are always handed to the system at once; ``durable`` waits until the disk has them."""
        if durable:
            with self._lock:
                os.fsync(self._file)

    def close(self) -> None:
        """Flush to the disk and close; a second call does nothing."""
        with self._lock:
            if self._file >= 0:
                os.fsync(self._file)
                os.close(self._file)
                self._file = -1

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, record: dict[str, Any], durable: bool = False) -> None:
        stamped = {**record, "wall": round(time.time(), 6), "mono": round(time.monotonic(), 6)}
        line = json.dumps(_finite(stamped), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        raw = line.encode("utf-8", errors="replace") + b"\n"
        with self._lock:
            if self._file < 0:
                raise ValueError(f"{self.path} is closed")
            failpoint("log.before_flush")
            before = os.fstat(self._file).st_size
            try:
                while raw:
                    raw = raw[os.write(self._file, raw) :]
                if durable:
                    os.fsync(self._file)
            except OSError as error:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, before)  # half a line would spoil the next one
                raise _unwritable(self.path, error) from error

    def _mend(self) -> None:
        """Cut off what stands behind the last newline."""
        end = os.fstat(self._file).st_size
        keep = end
        while keep > 0:
            start = max(0, keep - 65536)
            found = os.pread(self._file, keep - start, start).rfind(b"\n")
            if found >= 0:
                keep = start + found + 1
                break
            keep = start
        if keep < end:
            os.ftruncate(self._file, keep)


def encode(value: SupportsFloat) -> float | str:
    """A number as json holds it."""
    number = float(value)
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    return number


def decode(value: object) -> float:
    """The number that ``encode`` wrote; ValueError for anything else."""
    if isinstance(value, str) and value in _WORDS:
        return _WORDS[value]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise ValueError(f"{value!r} is no number")


def _finite(value: Any) -> Any:
    """The value with numbers that aren't finite as words, and what json doesn't know as text."""
    if isinstance(value, float):
        return encode(value)
    if value is None or isinstance(value, (str, int, bool)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return str(value)


def _check_version(path: Path) -> None:
    with path.open("rb") as file:
        first = file.readline(1000)
    try:
        version = json.loads(first)["version"] if first.endswith(b"\n") else VERSION
    except (ValueError, KeyError, TypeError):
        version = None
    if not isinstance(version, int) or version > VERSION:
        what, mend = "this is no journal of llmfw", "choose another run folder"
        if isinstance(version, int):
            what, mend = f"the journal has version {version}, this llmfw knows {VERSION}", "upgrade llmfw"
        raise UsageError("JOURNAL-VERSION", what, file=path, line=1, mend=mend)


def _unwritable(path: Path, error: OSError) -> ResourceError | UsageError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceError(
            "DISK-FULL",
            "no space left for the journal",
            file=path,
            mend="free space, then go on with --resume",
        )
    return UsageError(
        "RUN-FOLDER",
        f"the journal can't be written ({error.strerror})",
        file=path,
        mend="set run.dir to a folder that can be written",
    )
