"""The kernels between a decoder's matrix products as compiled regions: one graph each, shared by all layers.

The regions begin and end where a matrix product or the attention does, which no compiler makes faster on a
CPU; so neither the attention's arguments nor adapters, hooks and caches are part of any graph. Each has the
number of tokens as a free dimension and is compiled once, on made-up tensors of one size: what comes out
doesn't depend on the first batch that a run, or one that goes on, happens to see.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from llmfw.core.errors import ResourceError, UsageError
from llmfw.core.models import fused_kernels as eager
from llmfw.core.models.adapters import bare
from llmfw.core.models.fused import Fused
from llmfw.core.models.fused_kernels import Kernels
from llmfw.core.say import say

_TOKENS = 512
"""Tokens of the tensors that a region is compiled on."""


class Region:
    """A function of tensors [N, ...] and constants, compiled at its first call with each kind of tensors."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.name = function.__name__
        self._compiled: Any = torch.compile(function, fullgraph=True, dynamic=False)
        self._seen: set[Any] = set()
        self._lock = threading.Lock()

    def __call__(self, *given: Any) -> Any:
        """The function's result; inputs lose what they know of gradients, which would be other graphs."""
        given = tuple(g.detach().contiguous() if isinstance(g, Tensor) else g for g in given)
        kind = _kind(given)
        if kind not in self._seen:
            with self._lock:
                if kind not in self._seen:
                    self._compile(given)
                    self._seen.add(kind)
        return self._compiled(*given)

    def _compile(self, given: tuple[Any, ...]) -> None:
        free = given[0].shape[0]
        made = [
            torch.zeros((_TOKENS, *g.shape[1:]), dtype=g.dtype, device=g.device)
            if isinstance(g, Tensor) and g.dim() > 1 and g.shape[0] == free
            else g
            for g in given
        ]
        for part in made:
            if isinstance(part, Tensor) and part.dim() > 1:
                torch._dynamo.mark_dynamic(part, 0)
        start = time.monotonic()
        with compiling():
            self._compiled(*made)
        shape = ", ".join(map(str, given[0].shape[1:]))
        say(f"compiled {self.name} of [tokens, {shape}] in {time.monotonic() - start:.1f} s")


class compiling:  # noqa: N801  # a context
    """What fails inside is one line; and the compiler works in this process, beside no workers of its own."""

    def __enter__(self) -> None:
        import torch._inductor.config as config

        self._config, self._before = config, config.compile_threads
        config.compile_threads = 1

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._config.compile_threads = self._before
        if isinstance(error, Exception):
            said = " ".join(str(error).split())[:200]
            raise no_compiler(f"torch.compile failed: {type(error).__name__}: {said}") from error


def compiled() -> Kernels:
    """The compiled kernels of this process.

    Raises:
        ResourceError: COMPILE, where there is no compiler for this machine's device.
    """
    if torch.cuda.is_available():
        if find_spec("triton") is None:
            raise no_compiler("torch.compile needs the package triton on a GPU")
    else:
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler as error:
            raise no_compiler("torch.compile needs a C++ compiler, and there is none on PATH") from error
    return _kernels()


@cache
def _kernels() -> Kernels:
    return Kernels(
        Region(eager.norm),
        Region(eager.norm_input_grad),
        Region(eager.gated),
        Region(eager.gated_grads),
        Region(eager.rotated),
        Region(eager.rotated_grad),
    )


def refuse_nothing(fused: Fused, module: nn.Module) -> None:
    """Refuse a model in which there is nothing to compile.

    Raises:
        UsageError: COMPILE.
    """
    if not fused.counts:
        raise UsageError(
            "COMPILE",
            f"{type(bare(module)).__name__} has no RMSNorm, gated MLP or rotary attention to compile",
            mend="set trainer.compile=none, and leave trainer.fused at auto",
            key="trainer.compile",
        )


def no_compiler(what: str) -> ResourceError:
    """What is raised where regions can't be compiled."""
    return ResourceError(
        "COMPILE",
        what,
        mend="set trainer.compile=none, or install g++ (CPU) or triton (GPU)",
        key="trainer.compile",
    )


def _kind(given: tuple[Any, ...]) -> Any:
    """What a graph is made for, the number of tokens aside."""
    first = given[0]
    return (
        torch.is_autocast_enabled(first.device.type),
        torch.is_inference_mode_enabled(),
        torch._C._len_torch_function_stack(),  # a graph is made under the modes that were on, and for them
        torch.are_deterministic_algorithms_enabled(),
        torch.get_num_threads(),
        *(
            (g.shape[1:] if g.dim() > 1 else g.shape, g.dtype, g.device, g.is_inference())
            if isinstance(g, Tensor)
            else g
            for g in given
        ),
    )
