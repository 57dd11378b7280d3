"""What a process shares: looked at before and after, compared, and put back."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

_FREE = ("CUBLAS_WORKSPACE_CONFIG", "PYTEST_CURRENT_TEST", "COLUMNS", "LINES")
"""Environment variables that come and go with no harm: the first is set by every deterministic run."""


@dataclass(frozen=True, kw_only=True)
class State:
    """Everything of a process that one piece of code can change under another's feet. Not random numbers: who
    needs them seeds them. Nor warning filters: libraries set some when they are imported late.
    """

    folder: str
    environment: Mapping[str, str]
    path: tuple[str, ...]
    handlers: Mapping[int, Any]
    torch: Mapping[str, Any]


def look() -> State:
    """The present state."""
    return State(
        folder=os.getcwd(),
        environment={key: value for key, value in os.environ.items() if key not in _FREE},
        path=tuple(sys.path),
        handlers={
            number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
        },
        torch={name: get() for name, (get, _) in _torch().items()},
    )


def differences(before: State, after: State) -> Iterator[str]:
    """What changed in between, a phrase each."""
    if before.folder != after.folder:
        yield f"the working folder (now {after.folder})"
    for key in sorted({*before.environment, *after.environment}):
        if before.environment.get(key) != after.environment.get(key):
            yield f"the environment variable {key}"
    if before.path != after.path:
        changed = sorted({*before.path} ^ {*after.path})
        yield f"sys.path ({', '.join(changed) or 'its order'})"
    for number, handler in before.handlers.items():
        if after.handlers[number] != handler:
            yield f"the handler of {signal.Signals(number).name}"
    for name, value in before.torch.items():
        if after.torch[name] != value:
            yield f"{name} (from {value} to {after.torch[name]})"


def put_back(state: State) -> None:
    """Make the process as it was."""
    os.chdir(state.folder)
    for key in [key for key in os.environ if key not in state.environment and key not in _FREE]:
        del os.environ[key]
    for key, value in state.environment.items():
        if os.environ.get(key) != value:
            os.environ[key] = value
    sys.path[:] = state.path
    for number, handler in state.handlers.items():
        if signal.getsignal(number) != handler:
            with suppress(ValueError, TypeError):  # not the main thread; a handler that C code set
                signal.signal(number, handler)
    for name, (get, put) in _torch().items():
        if get() != state.torch[name]:
            put(state.torch[name])


def _torch() -> Mapping[str, tuple[Callable[[], Any], Callable[[Any], Any]]]:
    """Name of a global setting of torch -> how it's read and written."""
    import torch

    return {
        "torch's number of threads": (torch.get_num_threads, torch.set_num_threads),
        "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
        "torch's default device": (torch.get_default_device, torch.set_default_device),
        "torch's gradient mode": (torch.is_grad_enabled, torch.set_grad_enabled),
        "torch's deterministic algorithms": (
            torch.are_deterministic_algorithms_enabled,
            torch.use_deterministic_algorithms,
        ),
        "torch's anomaly mode": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    }
