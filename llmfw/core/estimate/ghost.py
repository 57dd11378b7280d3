"""Runs a model's real code without its values: floating-point tensors have shapes and lifetimes only.

Whole-number and boolean tensors (token ids, masks, positions, the layout of a batch) stay real, since code
looks at them. Every operator that reaches torch's kernels is noted, and so is when each stretch of memory
came and went: the peak is that of the code itself, not of a formula for it.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_DEVICE = torch.ops.prim.device.default
_EQUAL = torch.ops.aten.equal.default
_CHOICE = torch.ops.aten._fused_sdp_choice.default
_NO_WORK = frozenset(
    {
        torch.ops.aten._unsafe_view.default,
        torch.ops.aten.detach.default,
        torch.ops.aten.alias.default,
        torch.ops.aten.lift_fresh.default,
        torch.ops.aten.empty.memory_format,
        torch.ops.aten.empty_strided.default,
        torch.ops.aten.empty_like.default,
        torch.ops.aten.new_empty.default,
        torch.ops.aten.new_empty_strided.default,
    }
)
"""Operators that move no data, beside those that are views by their schema."""


@dataclass(frozen=True)
class Event:
    """A stretch of memory came (``bytes`` above 0) or went."""

    stretch: int
    bytes: int


@dataclass
class Stretch:
    """One storage: how large, what it's for, and the widest dimension of the tensor that it was made as."""

    bytes: int
    kind: str
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Call:
    """One operator call: the operator, and its arguments with tensors as ``Spec``."""

    operator: Any
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...]
    bytes: int
    """Of all tensors that it reads and writes."""


@dataclass(frozen=True)
class Spec:
    """A tensor's form."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: str

    @property
    def bytes(self) -> int:
        """Of the memory that it spans."""
        if 0 in self.shape:
            return 0
        reach = 1 + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
        return reach * self.dtype.itemsize


@dataclass
class Ledger:
    """What a ghost run did: memory events in order, and operator calls while ``counting``."""

    events: list[Event] = field(default_factory=list)
    stretches: list[Stretch] = field(default_factory=list)
    calls: dict[Call, int] = field(default_factory=dict)
    live: int = 0
    kind: str = "activations"
    """What memory made from now on is for."""
    counting: bool = False
    handled: int = 0
    """Operator calls seen, those that move no data included."""

    def peak(self, start: int = 0) -> tuple[int, dict[str, int]]:
        """(most bytes alive at once from event ``start`` on, and what they were for)."""
        alive: dict[str, int] = {}
        for event in self.events[:start]:
            self._add(alive, event)
        total = sum(alive.values())
        best, parts = total, dict(alive)
        highest = len(self.events)
        for index in range(start, len(self.events)):
            total += self.events[index].bytes
            if total > best:
                best, highest = total, index
        if best > sum(parts.values()):
            for event in self.events[start : highest + 1]:
                self._add(alive, event)
            parts = alive
        return best, {kind: size for kind, size in parts.items() if size}

    def _add(self, alive: dict[str, int], event: Event) -> None:
        kind = self.stretches[event.stretch].kind
        alive[kind] = alive.get(kind, 0) + event.bytes


class Ghost(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """While it's active, floating-point tensors that are made have no values, and all is written down."""

    def __init__(self, device: str = "cpu") -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.ledger = Ledger()
        self.device = torch.device(device)
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._places: dict[int, int] = {}
        self._watching: dict[int, Any] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is _DEVICE and _is_ghost(args[0]):  # every second call: a subclass is asked through here
            return args[0].fake_device
        if func is _CHOICE:
            return self._choose(args, kwargs)
        if func is _EQUAL and any(map(_is_ghost, args)):
            return True  # a trial whether a faster form gives the same answers: it's taken to do so
        given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        out = self._run(func, args, kwargs, given)
        made = [value for value in tree_leaves(out) if isinstance(value, Tensor)]
        for value in made:
            self._note(value)
        ledger = self.ledger
        ledger.handled += 1
        if (
            ledger.counting
            and not func.is_view
            and func not in _NO_WORK
            and any(map(_is_ghost, (*given, *made)))
        ):
            self._count(func, args, kwargs, given, made)
        return out

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], given: list[Tensor]) -> Any:
        if any(map(_is_ghost, given)):
            with self._fake:
                return func(*args, **kwargs)
        if given:  # whole numbers and masks: code looks at their values
            return func(*args, **kwargs)
        with self._fake:
            out = func(*args, **kwargs)
        if all(value.is_floating_point() for value in tree_leaves(out) if isinstance(value, Tensor)):
            return out
        return func(*args, **kwargs)

    def _choose(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Which attention kernel: asked of real tensors of these forms, whose memory is never touched."""
        if self.device.type != "cpu":
            with self._fake:
                return _CHOICE(*args, **kwargs)
        real = [_untouched(value) for value in args]
        return _CHOICE(*real, **{name: _untouched(value) for name, value in kwargs.items()})

    def _note(self, value: Tensor) -> None:
        if value.device.type == "meta":
            return
        storage = value.untyped_storage()
        key = storage._cdata
        if key in self._watching:
            return
        ledger, size = self.ledger, int(storage.nbytes())
        place = len(ledger.stretches)
        ledger.stretches.append(Stretch(size, ledger.kind, tuple(int(part) for part in value.shape)))
        ledger.events.append(Event(place, size))
        ledger.live += size
        self._places[key] = place

        def gone(_: Any) -> None:
            self._watching.pop(key, None)
            self._places.pop(key, None)
            ledger.events.append(Event(place, -size))
            ledger.live -= size

        self._watching[key] = weakref.ref(storage, gone)

    def mark(self, value: Tensor, kind: str) -> None:
        """Say what a tensor's memory is for, whenever it was made; memory not yet seen comes now."""
        self._note(value)
        self.ledger.stretches[self._places[value.untyped_storage()._cdata]].kind = kind

    def _count(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        given: list[Tensor],
        made: list[Tensor],
    ) -> None:
        moved = sum(value.numel() * value.element_size() for value in (*given, *made))
        call = Call(
            func, spell(args), tuple((name, spell(value)) for name, value in sorted(kwargs.items())), moved
        )
        self.ledger.calls[call] = self.ledger.calls.get(call, 0) + 1

    def __enter__(self) -> Ghost:
        self._swap = torch.utils.swap_tensors
        torch.utils.swap_tensors = _take_over
        super().__enter__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return self

    def __exit__(self, *failure: Any) -> None:
        super().__exit__(*failure)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.utils.swap_tensors = self._swap

    @contextmanager
    def kind(self, kind: str) -> Iterator[None]:
        """Memory made inside is for this."""
        before, self.ledger.kind = self.ledger.kind, kind
        try:
            yield
        finally:
            self.ledger.kind = before

    @contextmanager
    def counting(self) -> Iterator[dict[Call, int]]:
        """The operator calls inside, with how often each was made."""
        ledger, outer = self.ledger, (self.ledger.calls, self.ledger.counting)
        ledger.calls, ledger.counting = {}, True
        try:
            yield ledger.calls
        finally:
            ledger.calls, ledger.counting = outer

    def of(self, value: Tensor) -> Tensor:
        """A ghost of a real tensor's form on the ghost's device."""
        with self._fake:
            return torch.empty_strided(
                value.shape, value.stride(), dtype=value.dtype, device=self.device
            ).requires_grad_(value.requires_grad)


def spell(value: Any) -> Any:
    """An operator's argument as something that can be compared: tensors as ``Spec``, lists as tuples."""
    if isinstance(value, Tensor):
        shape = tuple(int(part) for part in value.shape)
        stride = tuple(int(part) for part in value.stride())
        return Spec(shape, stride, value.dtype, value.device.type)
    if isinstance(value, (list, tuple)):
        return tuple(spell(part) for part in value)
    return value


def _take_over(old: Tensor, new: Tensor) -> None:
    """What ``Module.to`` does with a ghost: torch's own swap refuses tensors that are known elsewhere."""
    if old.dtype != new.dtype or old.device != new.device:
        old.data = new.data


def _is_ghost(value: Any) -> bool:
    return isinstance(value, FakeTensor)


def _untouched(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype)
