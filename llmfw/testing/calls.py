"""Which functions of a plugin run, and where they return."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Function = tuple[str, str]
"""(name of its file, qualified name)."""
Calls = dict[Function, set[int]]
"""Function -> lines from which it returned."""


@contextmanager
def calls_into(inside: Callable[[str], bool]) -> Iterator[Calls]:
    """Notes the functions that this thread calls in the block, of files that ``inside`` accepts.

    Lambdas, comprehensions and module bodies have no name of their own, and don't count.
    """
    found: Calls = {}
    known: dict[Any, Function | None] = {}

    def note(frame: Any, event: str, argument: Any) -> None:
        if event != "return":
            return
        code = frame.f_code
        if code not in known:
            named = not code.co_name.startswith("<") and inside(code.co_filename)
            known[code] = (Path(code.co_filename).name, code.co_qualname) if named else None
        key = known[code]
        if key is not None:
            found.setdefault(key, set()).add(frame.f_lineno)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(before)


def left_early(usual: Calls, present: Calls) -> list[Function]:
    """Functions that now return only from lines where they otherwise never do."""
    return sorted(name for name, lines in present.items() if name in usual and not lines & usual[name])
