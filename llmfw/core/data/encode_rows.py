"""Many rows to examples: in this process, or, where they are many, in several that are forked from it.

Rows are tokenised one by one either way, so masks stay exact, and the result doesn't depend on the number of
processes.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Final

from llmfw.core.data.encode import EncodeCounts, Encoder
from llmfw.core.data.examples import Example
from llmfw.core.data.formats import PLACE, Form, RowError
from llmfw.core.data.reader import BadRows
from llmfw.core.data.token_cache import summed
from llmfw.core.errors import ResourceError
from llmfw.core.records import Row

MANY: Final = 8192
"""Rows from which on other processes pay."""
_CHUNK: Final = 512
_Refused = tuple[str, str | None, str]
"""What, key and mend of a row's error."""
_forked: list[tuple[Encoder, Form, Sequence[Row]]] = []
"""What forked processes work on: they inherit it, nothing is sent to them."""


def encode_rows(
    encoder: Encoder, form: Form, rows: Sequence[Row], bad: BadRows, *, processes: int | None = None
) -> list[Example]:
    """The rows' examples, in order; rows that can't be tokenised go to ``bad``.

    ``processes``: by default as many as there are processors for this process, from ``MANY`` rows on.
    """
    if processes is None:
        processes = _processors() if len(rows) >= MANY else 1
    examples: list[Example] = []
    for start, made in enumerate(_in_turn(encoder, form, rows, processes)):
        if isinstance(made, Example):
            examples.append(made)
        elif made is not None:
            row = rows[start]
            what, key, mend = made
            bad.refuse(str(row.get(PLACE) or f"row {row['id']}"), RowError(what, key=key, mend=mend))
    return examples


def _in_turn(
    encoder: Encoder, form: Form, rows: Sequence[Row], processes: int
) -> Iterator[Example | _Refused | None]:
    if processes <= 1:
        for row in rows:
            yield _one(encoder, form, row)
        return
    _forked.append((encoder, form, rows))
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("fork"), _plain_signals)
    try:
        for made, counts in pool.map(_chunk, range(0, len(rows), _CHUNK)):
            encoder.counts = summed(encoder.counts, counts)
            yield from made
    except BrokenProcessPool as error:
        raise ResourceError(
            "TOKENISE", "a process that tokenises rows has died, perhaps for want of memory",
            mend="free some memory, or set data.streaming=true", key="data",
        ) from error  # fmt: skip
    finally:
        pool.shutdown(cancel_futures=True)
        _forked.pop()


def _plain_signals() -> None:
    """A forked process dies when it's told to; the run's own handlers, which wait for a step's end, aren't
    for it.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _chunk(start: int) -> tuple[list[Example | _Refused | None], EncodeCounts]:
    encoder, form, rows = _forked[-1]
    encoder.counts = EncodeCounts()
    return [_one(encoder, form, row) for row in rows[start : start + _CHUNK]], encoder.counts


def _one(encoder: Encoder, form: Form, row: Row) -> Example | _Refused | None:
    try:
        return encoder.encode(form, row)
    except RowError as problem:
        return problem.what, problem.key, problem.mend


def _processors() -> int:
    """Processors for this process: its share of the machine's, 1 where processes can't be forked."""
    if sys.platform != "linux" or multiprocessing.current_process().daemon:
        return 1
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1") or 1)
    return max(1, len(os.sched_getaffinity(0)) // beside)
