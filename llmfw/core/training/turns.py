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


def for_all(work: Callable[[], _T]) -> _T:
    """What ``work`` gives in the main process (rank 0), told to the others, which wait however long it takes.

    Every process makes this call; a sharded model must be whole for its length (``TrainModule.whole``).

    Raises:
        ResourceError: OTHER-PROCESS in the processes that waited, where the work failed in the main one.
    """
    if world() == 1:
        return work()
    group = distributed.new_group(backend="gloo", timeout=_PATIENCE)
    told: list[Any] = [False, None]
    try:
        if distributed.get_rank() == 0:
            try:
                told = [True, work()]
            finally:
                distributed.broadcast_object_list(told, src=0, group=group)
        else:
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
