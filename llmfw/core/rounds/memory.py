"""What a round's sampling has brought so far, on disk answer by answer, so that none is generated twice.

One json a line. A line that a kill has cut, and all behind it, never were.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from llmfw.core.records import Completion

_FLUSH_EVERY = 2.0
"""Seconds of sampling that a power loss may cost; a killed process loses nothing."""


class Call:
    """One request for answers: those that are known already, by index, and what they took."""

    def __init__(self, memory: Memory, name: str) -> None:
        self._memory, self._name = memory, name
        self.known: dict[int, Completion] = {}
        self.seconds = 0.0

    def add(self, index: int, answer: Completion, seconds: float) -> None:
        """Remember an answer that took so long after the one before it."""
        self.known[index] = answer
        self.seconds += seconds
        self._memory.write({"call": self._name, "at": index, "answer": asdict(answer), "seconds": seconds})


class Memory:
    """The answers and values of one round, by what was asked for; asked again in order, they come again."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._calls: dict[str, Call] = {}
        self._values: dict[str, Any] = {}
        self._asked: Counter[str] = Counter()
        self._out: IO[bytes] | None = None
        self._flushed = 0.0
        self._whole = self._read() if file.exists() else 0

    def call(self, key: str) -> Call:
        """The request of this key; the next of the same key is another one."""
        name = self._named(key)
        return self._calls.setdefault(name, Call(self, name))

    def value(self, key: str) -> tuple[str, bool, Any]:
        """(name to remember it by, whether it's known, the value) of what is made once."""
        name = self._named(key)
        return name, name in self._values, self._values.get(name)

    def keep(self, name: str, value: Any) -> None:
        """Remember a value under the name that ``value`` gave."""
        self._values[name] = value
        self.write({"once": name, "value": value})

    def unasked(self) -> int:
        """Answers that were generated before and that nobody has asked for again."""
        return sum(len(call.known) for name, call in self._calls.items() if not self._again(name))

    def write(self, line: Mapping[str, Any]) -> None:
        """Append a line; it survives the process from here on, and the machine a moment later."""
        if self._out is None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._out = self._file.open("ab")
            self._out.truncate(self._whole)
        self._out.write(_encoded(line) + b"\n")
        self._out.flush()
        if time.monotonic() - self._flushed > _FLUSH_EVERY:
            self.flush()

    def flush(self) -> None:
        """Have what is written survive the machine."""
        if self._out is not None:
            os.fsync(self._out.fileno())
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Flush and close the file."""
        if self._out is not None:
            self.flush()
            self._out.close()
            self._out = None

    def _named(self, key: str) -> str:
        self._asked[key] += 1
        return f"{key}.{self._asked[key]}"

    def _again(self, name: str) -> bool:
        key, _, number = name.rpartition(".")
        return int(number) <= self._asked[key]

    def _read(self) -> int:
        """Take the file's whole lines in. -> Bytes of them."""
        whole = 0
        for line in self._file.read_bytes().splitlines(keepends=True):
            try:
                told = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                told = None
            if not isinstance(told, dict):
                break
            whole += len(line)
            if "once" in told:
                self._values[told["once"]] = told["value"]
                continue
            call = self._calls.setdefault(told["call"], Call(self, told["call"]))
            call.known[told["at"]] = completion(told["answer"])
            call.seconds += told["seconds"]
        return whole


def _encoded(line: Mapping[str, Any]) -> bytes:
    """As json; halves of characters, which utf-8 doesn't have, are escaped."""
    try:
        return json.dumps(line, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(line).encode()


def completion(said: Mapping[str, Any]) -> Completion:
    """A completion as json remembers it."""
    logps = said["logps"]
    return Completion(
        text=said["text"], ids=tuple(said["ids"]), prompt_tokens=said["prompt_tokens"],
        finish=said["finish"], logps=None if logps is None else tuple(logps), unseen=said.get("unseen", 0),
    )  # fmt: skip
