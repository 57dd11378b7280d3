"""How far a long measurement is: a bar on a terminal, a line now and then elsewhere; on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from llmfw.core.say import is_main_process

_T = TypeVar("_T")
_SECONDS_BETWEEN_LINES = 10.0


def counted(
    parts: Sequence[_T], title: str, size: Callable[[_T], int] = lambda part: 1, *, show: bool = True
) -> Iterator[_T]:
    """The parts one by one, telling after each how many items (``size`` of each part) are done."""
    teller = Teller(title, sum(size(part) for part in parts), show=show)
    try:
        for part in parts:
            yield part
            teller.add(size(part))
    finally:
        teller.close()


class Teller:
    """Tells how many of ``total`` items are done; nothing where ``show`` is false or there is one item."""

    def __init__(self, title: str, total: int, *, show: bool = True) -> None:
        from rich.console import Console

        self._title, self._total, self._done = title, total, 0
        self._begun = self._spoken = time.monotonic()
        self._console = Console(stderr=True) if show and total > 1 and is_main_process() else None
        self._drawn = False

    def add(self, items: int) -> None:
        """So many more items are done."""
        self._done += items
        if self._console is None:
            return
        now = time.monotonic()
        left = (now - self._begun) / max(1, self._done) * (self._total - self._done)
        text = f"{self._title}: {self._done}/{self._total}, {round(left)} s left"
        if self._console.is_terminal:
            # a carriage return and no live display: a training's own bar may be on the screen
            self._console.file.write(f"\r\x1b[2K{text}")
            self._console.file.flush()
            self._drawn = True
        elif now - self._spoken >= _SECONDS_BETWEEN_LINES:
            self._spoken = now
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Wipe the line."""
        if self._console is not None and self._drawn:
            self._console.file.write("\r\x1b[2K")
            self._console.file.flush()
            self._drawn = False


def batches(items: Iterable[_T], size: int) -> list[list[_T]]:
    """The items in lists of ``size``."""
    found = list(items)
    return [found[start : start + size] for start in range(0, len(found), size)]
