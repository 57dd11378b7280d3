"""Named places where a test may kill, fail or hold the process; they cost one dictionary look-up otherwise.

``LLMFW_FAILPOINT=name:count:kill|raise|sleep`` acts at the ``count``-th time (from 1) that the place is
reached; several are separated by commas.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from llmfw.core.errors import UsageError

VARIABLE = "LLMFW_FAILPOINT"
NAMES = (
    "ckpt.before_write",
    "ckpt.mid_write",
    "ckpt.before_fsync",
    "ckpt.before_rename",
    "ckpt.after_rename",
    "ckpt.before_prune",
    "train.first_batch_after_resume",
    "train.mid_accum",
    "train.last_batch_of_epoch",
    "val.mid",
    "log.before_flush",
    "mlflow.mid_sync",
    "sandbox.mid_call",
    "loop.mid_generate",
    "loop.after_generate_before_score",
    "loop.before_round",
    "loop.before_done",
    "loop.after_round",
)
ACTIONS = ("kill", "raise", "sleep")
SLEEP_SECONDS = 600.0

_reached: Counter[str] = Counter()


class Failpoint(RuntimeError):
    """What the action ``raise`` raises: an ordinary bug, as far as the rest of the program can tell."""


def planned(text: str) -> dict[str, tuple[int, str]]:
    """What a value of ``LLMFW_FAILPOINT`` asks for: name -> (count, action).

    Raises:
        UsageError: FAILPOINT, where a name, count or action isn't known.
    """
    plan: dict[str, tuple[int, str]] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, rest = item.partition(":")
        count, _, action = rest.partition(":")
        if name not in NAMES or not count.isdecimal() or int(count) < 1 or action not in ACTIONS:
            raise UsageError(
                "FAILPOINT",
                f"{item!r} is no failpoint",
                mend=f"write NAME:COUNT:{'|'.join(ACTIONS)} with a name of {', '.join(NAMES)}",
                key=VARIABLE,
            )
        plan[name] = (int(count), action)
    return plan


@contextmanager
def armed(text: str) -> Iterator[None]:
    """Plan this, in place of what the environment says, for the length of a block; counts begin at 0."""
    planned(text)
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = text
    _reached.clear()
    try:
        yield
    finally:
        _reached.clear()
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before


def failpoint(name: str) -> None:
    """Act here if the environment says so; ``name`` is one of ``NAMES``."""
    text = os.environ.get(VARIABLE)
    if not text:
        return
    count, action = planned(text).get(name, (0, ""))
    if not count:
        return
    _reached[name] += 1
    if _reached[name] != count:
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "sleep":
        time.sleep(SLEEP_SECONDS)
    else:
        raise Failpoint(name)
