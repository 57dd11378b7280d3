"""Seconds of what plugins do once, or now and then, in a run: not step by step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

ONCE = ("setup", "teardown", "on_fit_start", "on_fit_end", "on_train_start", "on_train_end", "on_exception")
"""Methods of a callback that no step calls."""


class Spent:
    """Seconds by (plugin, part), until they're written down."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, str], float] = {}

    def add(self, plugin: str, part: str, seconds: float) -> None:
        """So much more for a plugin's part."""
        self._seconds[plugin, part] = self._seconds.get((plugin, part), 0.0) + seconds

    def take(self) -> list[dict[str, Any]]:
        """What was added since the last call: ``plugin``, ``name``, ``seconds``."""
        told = [
            {"plugin": plugin, "name": part, "seconds": seconds}
            for (plugin, part), seconds in self._seconds.items()
        ]
        self._seconds = {}
        return told

    @contextmanager
    def during(self, plugin: str, part: str) -> Iterator[None]:
        """The block's seconds are the part's, also where it fails."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(plugin, part, time.perf_counter() - start)

    def timed(self, plugin: str, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function; what its calls take is the part's."""

        @wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            with self.during(plugin, part):
                return function(*args, **kwargs)

        return called

    @contextmanager
    def once(self, callbacks: Sequence[tuple[str, Any]]) -> Iterator[None]:
        """Inside, what these callbacks do at the begin and the end of a training is theirs."""
        with ExitStack() as undo:
            for plugin, callback in callbacks:
                for name in ONCE:
                    method, part = getattr(callback, name, None), f"callback/{type(callback).__name__}"
                    if callable(method):
                        undo.enter_context(swapped(callback, name, self.timed(plugin, part, method)))
            yield


@contextmanager
def swapped(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute of the instance is another one inside the block."""
    there = name in vars(owner)
    before = vars(owner).get(name)
    vars(owner)[name] = value
    try:
        yield
    finally:
        if there:
            vars(owner)[name] = before
        else:
            del vars(owner)[name]
