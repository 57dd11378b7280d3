"""What belongs to the process and no plugin may take: looked at before its code runs and after, and put back.

Only libraries that were there before are looked at: a first import of one may set it up as it likes.
"""

from __future__ import annotations

import ast
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmfw.core.guard.owners import Owner, Place, owner_of_file
from llmfw.core.telemetry import OPT_OUT

_NAMES = """
OMP_NUM_THREADS MKL_NUM_THREADS OPENBLAS_NUM_THREADS CUDA_VISIBLE_DEVICES CUBLAS_WORKSPACE_CONFIG
HF_HUB_OFFLINE HF_DATASETS_OFFLINE TRANSFORMERS_OFFLINE MLFLOW_TRACKING_URI PYTHONHASHSEED HOME PATH TMPDIR
RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT
"""
_VARIABLES = frozenset(name.encode() for name in (*_NAMES.split(), *OPT_OUT))
"""Environment variables that a run depends on, beside ours (``LLMFW_``)."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGALRM)


@dataclass(frozen=True)
class _Thing:
    """``read`` and ``put`` get the library (None: the interpreter); ``words`` are calls that change it."""

    name: str
    library: str | None
    read: Callable[[Any], Any]
    put: Callable[[Any, Any], None]
    words: tuple[str, ...] = ()


def _environment(_: Any) -> dict[bytes, bytes]:
    whole: dict[bytes, bytes] = os.environ._data  # type: ignore[attr-defined]  # decoding all of them takes longer
    return {name: text for name, text in whole.items() if name in _VARIABLES or name[:6] == b"LLMFW_"}


def _put_environment(_: Any, before: dict[bytes, bytes]) -> None:
    for name in _environment(None):
        if name not in before:
            del os.environb[name]
    os.environb.update(before)


def _handlers(_: Any) -> list[Any]:
    return [signal.getsignal(number) for number in _SIGNALS]


def _put_handlers(_: Any, before: list[Any]) -> None:
    if threading.current_thread() is threading.main_thread():
        for number, handler in zip(_SIGNALS, before, strict=True):
            if handler is not None:
                signal.signal(number, handler)


def _put_streams(_: Any, before: tuple[Any, Any]) -> None:
    sys.stdout, sys.stderr = before


def _folder(_: Any) -> str | None:
    try:
        return os.getcwd()
    except OSError:  # removed under us
        return None


def _put_folder(_: Any, before: str) -> None:
    os.chdir(before)


def _put_filters(_: Any, before: list[Any]) -> None:
    warnings.filters[:] = before  # type: ignore[index]  # typeshed says Sequence; it's the list that warnings keeps
    warnings._filters_mutated()  # type: ignore[attr-defined]  # else cached decisions stay


def _devices(torch: Any) -> Any:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None


def _put_devices(torch: Any, before: Any) -> None:
    torch.cuda.set_rng_state_all(before)


def _put_random(_: Any, before: Any) -> None:
    random.setstate(before)


def _numpy_state(numpy: Any) -> Any:
    return numpy.random.get_state()


def _put_numpy_state(numpy: Any, before: Any) -> None:
    numpy.random.set_state(before)


def _put_torch_state(torch: Any, before: Any) -> None:
    torch.set_rng_state(before)


def _put_threads(torch: Any, before: int) -> None:
    torch.set_num_threads(before)


def _interop(torch: Any) -> Any:
    return torch.get_num_interop_threads()


def _nothing(library: Any, before: Any) -> None:
    """It can be set once in a process, not put back."""


def _put_dtype(torch: Any, before: Any) -> None:
    torch.set_default_dtype(before)


def _put_gradients(torch: Any, before: bool) -> None:
    torch._C._set_grad_enabled(before)


def _deterministic(torch: Any) -> tuple[bool, bool]:
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    return torch.are_deterministic_algorithms_enabled(), warn_only


def _put_deterministic(torch: Any, before: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(before[0], warn_only=before[1])


_FILTERING = ("simplefilter", "filterwarnings", "resetwarnings")
_DTYPES = ("set_default_dtype", "set_default_tensor_type")
_GRADIENTS = ("set_grad_enabled", "no_grad", "enable_grad")
_DETERMINISTIC = ("use_deterministic_algorithms",)
_FILTERS = "the warnings' filters"
_SEEDS = (
    "seed",
    "manual_seed",
    "manual_seed_all",
    "seed_everything",
    "set_seed",
    "set_rng_state",
    "setstate",
)
_DRAWS = (
    "rand",
    "randn",
    "randint",
    "randperm",
    "random",
    "shuffle",
    "choice",
    "sample",
    "normal",
    "uniform",
)
_RANDOM = (*_SEEDS, *_DRAWS)
_THINGS = (
    _Thing("Python's random numbers", None, lambda _: random.getstate(), _put_random, _RANDOM),
    _Thing("the working folder", None, _folder, _put_folder, ("chdir", "fchdir")),
    _Thing("environment variables", None, _environment, _put_environment, ("environ", "putenv")),
    _Thing("signal handlers", None, _handlers, _put_handlers, ("signal", "siginterrupt")),
    _Thing("standard output", None, lambda _: (sys.stdout, sys.stderr), _put_streams, ("stdout", "stderr")),
    _Thing(_FILTERS, None, lambda _: list(warnings.filters), _put_filters, _FILTERING),
    _Thing("numpy's random numbers", "numpy", _numpy_state, _put_numpy_state, _RANDOM),
    _Thing("torch's random numbers", "torch", lambda t: t.get_rng_state(), _put_torch_state, _RANDOM),
    _Thing("the GPUs' random numbers", "torch", _devices, _put_devices, _RANDOM),
    _Thing(
        "torch's thread count", "torch", lambda t: t.get_num_threads(), _put_threads, ("set_num_threads",)
    ),
    _Thing("torch's interop thread count", "torch", _interop, _nothing, ("set_num_interop_threads",)),
    _Thing("torch's default dtype", "torch", lambda t: t.get_default_dtype(), _put_dtype, _DTYPES),
    _Thing("torch's gradient mode", "torch", lambda t: t.is_grad_enabled(), _put_gradients, _GRADIENTS),
    _Thing("torch's deterministic mode", "torch", _deterministic, _put_deterministic, _DETERMINISTIC),
)
_READY = {"numpy": "random", "torch": "use_deterministic_algorithms"}
"""What a library has once it's imported to the end."""


class Belongings:
    """The state at one moment."""

    __slots__ = ("modules", "values")

    def __init__(self) -> None:
        self.modules = len(sys.modules)
        self.values: list[tuple[_Thing, Any, Any]] = []
        libraries = {None: None} | {
            name: library
            for name, ready in _READY.items()
            if (library := sys.modules.get(name)) is not None and ready in vars(library)
        }
        for thing in _THINGS:
            if thing.library in libraries:
                library = libraries[thing.library]
                self.values.append((thing, library, thing.read(library)))

    def put_back(self, owner: Owner) -> list[_Thing]:
        """What isn't as it was and the plugin took; afterwards all is as it was.

        Where modules of others were imported meanwhile, they may have drawn or set something themselves: the
        plugin is charged only with what a line of its own may have done. Where its files aren't known, with
        everything but random numbers, from which libraries draw names.
        """
        taken = []
        others = self._others_came(owner)
        for thing, library, before in self.values:
            if before is None:  # there was none: GPUs are set up by their first use
                continue
            now = thing.read(library)
            if _same(before, now) or (thing.name == _FILTERS and others):
                continue
            own = first_call(owner, thing)[0] is not None if owner.roots else thing.words is not _RANDOM
            if not others or own:
                taken.append(thing)
            with suppress(OSError):
                thing.put(library, before)
        return taken

    def _others_came(self, owner: Owner) -> bool:
        """Whether modules of others were imported meanwhile; they may bring filters for warnings, too."""
        new = list(sys.modules.values())[self.modules :]
        files = [getattr(module, "__file__", None) for module in new]
        return any(file is not None and owner_of_file(file) != owner for file in files)


def _same(left: Any, right: Any) -> bool:
    if left is right:
        return True
    if type(left) is not type(right):
        return False
    if hasattr(left, "untyped_storage"):
        return bool(left.equal(right))
    if hasattr(left, "tobytes"):
        return bool(left.tobytes() == right.tobytes())
    try:
        return bool(left == right)
    except (ValueError, RuntimeError):  # arrays or tensors inside
        return len(left) == len(right) and all(map(_same, left, right))


def first_call(owner: Owner, thing: _Thing) -> Place:
    """The first line in a plugin's files that may have taken the thing; (None, None) where none looks so."""
    for file in _sources(owner):
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (OSError, SyntaxError, ValueError):
            continue
        lines = [
            node.lineno
            for node in ast.walk(tree)
            if (isinstance(node, ast.Attribute) and node.attr in thing.words)
            or (
                isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in thing.words
            )
        ]
        if lines:
            return str(file), min(lines)
    return None, None


def _sources(owner: Owner) -> Iterator[Path]:
    for root in owner.roots:
        path = Path(root)
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]
