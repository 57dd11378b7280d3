"""What one step does: matrix products by phase, and every place where the host waits for the device.

A GPU works through a queue while the host goes on; reading a number back makes the host wait until the queue
is empty. Each such place is counted, with the line of ours that it comes from. On a CPU, where nothing waits,
the same calls are counted: they are what would wait.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from llmfw.core.profiling.phases import Phase

_READS = {
    "item": "item", "tolist": "tolist", "__bool__": "bool", "__float__": "float", "__int__": "int",
    "__index__": "index", "__len__": "", "cpu": "cpu", "numpy": "numpy", "nonzero": "nonzero",
    "unique": "unique", "equal": "equal", "masked_select": "masked_select",
}  # fmt: skip
"""Methods and functions that read a tensor's values, by their names."""
_READING_OPS = (
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "equal",
    "_unique2",
    "unique_dim",
    "is_nonzero",
)
"""Operations that do, wherever they are called from."""
_SENDS = ("tensor", "as_tensor", "new_tensor")
"""Functions that copy the host's numbers to a device; from ordinary memory, the host waits for that too."""
_SKIPPED = ("importlib", "contextlib", "functools", "threading")


class Counting:
    """Counts inside a ``with`` block, in all threads that autograd uses. It changes no number.

    Args:
        phase: which phase is under way; those of ``silent`` aren't looked at (the loader works with host
            tensors).
    """

    def __init__(self, phase: Callable[[], Phase], silent: Sequence[Phase] = ()) -> None:
        self.flops: dict[Phase, int] = defaultdict(int)
        self.reads: Counter[tuple[str, str, Phase]] = Counter()
        """(what, where, phase) -> how often."""
        self._phase, self._silent = phase, tuple(silent)
        self._inside = False

    @contextmanager
    def over(self) -> Iterator[None]:
        """Count what the block does."""
        with _Calls(self), _Operations(self):
            yield

    @property
    def waits(self) -> int:
        """How often the host would wait for the device."""
        return sum(self.reads.values())

    def note(self, what: str) -> None:
        """The host reads or sends something here."""
        phase = self._phase()
        if phase not in self._silent:
            self.reads[what, _place(), phase] += 1

    def _flops(self, packet: Any, args: Any, kwargs: Any, out: Any) -> None:
        formula = _FORMULAS.get(packet)
        if formula is not None:
            self.flops[self._phase()] += int(formula(*args, **kwargs, out_val=out))


class _Calls(TorchFunctionMode):
    def __init__(self, counting: Counting) -> None:
        super().__init__()
        self._counting = counting

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        what = self._what(getattr(func, "__name__", ""), args, kwargs)
        if not what or self._counting._inside:
            return func(*args, **kwargs)
        self._counting.note(what)
        self._counting._inside = True
        try:
            return func(*args, **kwargs)
        finally:
            self._counting._inside = False

    def _what(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        if name in _SENDS:
            given = args[1] if name == "new_tensor" else args[0] if args else kwargs.get("data")
            placed = name == "new_tensor" or kwargs.get("device") is not None
            return "" if isinstance(given, Tensor) or not placed else f"{name}: host to device"
        if name in ("__getitem__", "__setitem__"):
            return "index by truth values" if _by_truth(args[1]) else ""
        if name == "where" and len(args) + len(kwargs) == 1:
            return "where"
        if name == "repeat_interleave":
            sized = kwargs.get("output_size") is not None
            repeats = args[1] if len(args) > 1 else kwargs.get("repeats", args[0] if args else None)
            return "" if sized or not isinstance(repeats, Tensor) else "repeat_interleave"
        return _READS.get(name, "")


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, counting: Counting) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._counting = counting

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        packet, counting = func._overloadpacket, self._counting
        counting._flops(packet, args, kwargs, out)
        if not counting._inside:
            name = packet.__name__
            if name in _READING_OPS or (name == "_to_copy" and _to_host(args, out)):
                counting.note("copy to the host" if name == "_to_copy" else name.strip("_"))
        return out


def _to_host(args: Sequence[Any], out: Any) -> bool:
    return isinstance(out, Tensor) and out.device.type == "cpu" and args[0].device.type != "cpu"


def _by_truth(index: Any) -> bool:
    found = index if isinstance(index, tuple) else (index,)
    return any(isinstance(one, Tensor) and one.dtype in (torch.bool, torch.uint8) for one in found)


def _attention(query: Any, key: Any, value: Any, *args: Any, out_val: Any = None, **kwargs: Any) -> int:
    """[B, H, T, d] queries on [B, H, S, d] keys: 2 B H T S d for the scores, as much for the sums."""
    batch, heads, length, width = query.shape
    return int(2 * batch * heads * length * key.shape[-2] * (width + value.shape[-1]))


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    """Scores once more, then gradients of values, probabilities, queries and keys: five products."""
    batch, heads, length, width = query.shape
    return int(2 * batch * heads * length * key.shape[-2] * (3 * width + 2 * value.shape[-1]))


_FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""Floating-point operations of matrix products, by operation; torch knows all but the CPU's attention."""


def _place() -> str:
    """FILE:LINE of the innermost caller that isn't torch's or this file."""
    frame: Any = sys._getframe(2)
    own, torch_home = __file__, str(Path(torch.__file__).parent)
    while frame is not None:
        name = frame.f_code.co_filename
        library = name.startswith((torch_home, "<")) or any(
            f"{word}." in Path(name).name for word in _SKIPPED
        )
        if name != own and not library:
            return f"{_short(name)}:{frame.f_lineno}"
        frame = frame.f_back
    return "torch"


def _short(name: str) -> str:
    """A file's path from its package on."""
    parts = Path(name).parts
    for home in ("site-packages", "dist-packages"):
        if home in parts:
            return "/".join(parts[parts.index(home) + 1 :])
    return "/".join(parts[len(parts) - parts[::-1].index("llmfw") - 1 :]) if "llmfw" in parts else parts[-1]


@contextmanager
def synchronizations() -> Iterator[Counter[str]]:
    """Counts, by place, the waits that CUDA itself tells of inside the block; empty without a GPU."""
    found: Counter[str] = Counter()
    if not torch.cuda.is_available():
        yield found
        return
    before = torch.cuda.get_sync_debug_mode()

    def show(message: Any, category: Any, filename: str, lineno: int, *_: Any) -> None:
        if "synchroniz" in str(message):
            found[_place()] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show  # type: ignore[assignment]  # the rest of the arguments is not used
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode(before)
