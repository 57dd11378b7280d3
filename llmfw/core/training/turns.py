"""Work that the main process does for all of a run's processes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from torch import distributed

from llmfw.core.errors import ResourceError
from llmfw.core.training.ranks import world

_T = TypeVar("_T")
_PATIENCE = timedelta(days=7)
"""The others wait in a group of their own: a training's own groups give up after half an hour."""


def for_all(work: Callable[[], _T], *, everywhere: bool = False) -> _T:
    """What ``work`` gives in the main process (rank 0), told to the others, which wait however long it takes.

    Every process makes this call. ``everywhere``: all of them work, and take the main one's result. A sharded
    model needs it, and must be whole for the call's length (``TrainModule.whole``): FSDP2 counts the forward
    passes, and prefetches in the next backward pass by that count, so all processes must have made some.

    Raises:
        ResourceError: OTHER-PROCESS in the processes that waited, where the work failed in the main one.
    """
    if world() == 1:
        return work()
    group = distributed.new_group(backend="gloo", timeout=_PATIENCE)
    told: list[Any] = [False, None]
    try:
        try:
            if everywhere or distributed.get_rank() == 0:
                told = [True, work()]
        finally:
            distributed.broadcast_object_list(told, src=0, group=group)
    finally:
        distributed.destroy_process_group(group)
    done, result = told
    if not done:
        raise ResourceError(
            "OTHER-PROCESS", "the main process stopped while it measured the model", mend="see its error"
        )
    found: _T = result
    return found
