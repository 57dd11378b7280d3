"""Whose work a step's time is: regions in each other, and the autograd nodes that were made in them."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch import Tensor

Key = tuple[str, str]
"""(plugin, part)."""


class Clock:
    """Seconds by part. A region's time is its own: what a region inside it takes counts there, not here.

    None is everybody else: the model, Lightning, the core. Inside a part of ``closed`` nothing else is told
    apart, so a reference's forward pass stays the reference's, whatever modules it shares with the policy.
    """

    def __init__(self, device: torch.device, closed: Collection[Key] = ()) -> None:
        self.seconds: dict[Key, float] = defaultdict(float)
        self._cuda = device if device.type == "cuda" else None
        self._closed = frozenset(closed)
        self._stack: list[Key | None] = [None]
        self._since = 0.0
        self._turns: list[tuple[int, Key | None]] = []

    def now(self) -> float:
        """Seconds, once the GPU has done what it was asked to."""
        if self._cuda is not None:
            torch.cuda.synchronize(self._cuda)
        return time.perf_counter()

    def enter(self, key: Key | None) -> None:
        """What follows is this part's work."""
        top = self._stack[-1]
        if top in self._closed:
            key = top
        self._stack.append(key)
        if key != top:
            self._turn(top, key)

    def leave(self) -> None:
        """The region that was entered last is over."""
        key, top = self._stack.pop(), self._stack[-1]
        if key != top:
            self._turn(key, top)

    def _turn(self, before: Key | None, after: Key | None) -> None:
        now = self.now()
        if before is not None:
            self.seconds[before] += now - self._since
        self._since = now
        self._turns.append((torch.autograd._get_sequence_nr(), after))  # type: ignore[attr-defined]

    def call(self, key: Key | None, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The function's answer; its time is the part's."""
        self.enter(key)
        try:
            return function(*args, **kwargs)
        finally:
            self.leave()

    # --- the backward pass ----------------------------------------------------------------------------------

    def forward(self, key: Key | None, function: Callable[..., Any], *args: Any) -> Any:
        """As ``call``; ``made_here`` then knows what was computed in which region of it."""
        self._turns = [(torch.autograd._get_sequence_nr(), self._stack[-1])]  # type: ignore[attr-defined]
        return self.call(key, function, *args)

    def made_here(self, total: Tensor) -> Iterator[tuple[Key, Any]]:
        """(part, autograd node) behind ``total`` that the last ``forward`` made for a part.

        Nodes are numbered as they're made, so a node belongs to the region that had the clock at its number.
        """
        numbers, keys = [number for number, _ in self._turns], [key for _, key in self._turns]
        end = torch.autograd._get_sequence_nr()  # type: ignore[attr-defined]
        seen: set[Any] = set()
        waiting = [total.grad_fn]
        while waiting:
            node = waiting.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            waiting += [other for other, _ in node.next_functions]
            number = node._sequence_nr()
            if numbers[0] <= number < end and (key := keys[bisect_right(numbers, number) - 1]) is not None:
                yield key, node

    def time_backward(self, key: Key, node: Any) -> None:
        """Let the node's part of the backward pass count as the part's work."""
        node.register_prehook(lambda gradients: self.enter(key))
        node.register_hook(lambda inputs, outputs: self.leave())


def saved_bytes(nodes: Collection[Any], known: Collection[Tensor]) -> int:
    """Memory that these autograd nodes keep for the backward pass, each stretch of it once.

    Parameters and the tensors of ``known`` are there anyway and aren't counted.
    """
    places = {_place(value) for value in known}
    found: dict[int, int] = {}
    for node in nodes:
        for value in _saved(node):
            if not (value.is_leaf and value.requires_grad) and _place(value) not in places:
                found[_place(value)] = value.untyped_storage().nbytes()
    return sum(found.values())


def _saved(node: Any) -> Iterator[Tensor]:
    named = [getattr(node, name) for name in dir(node) if name.startswith("_saved_")]
    for value in [*named, getattr(node, "saved_tensors", ())]:
        for one in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(one, Tensor):
                yield one


def _place(value: Tensor) -> int:
    return value.untyped_storage().data_ptr()
