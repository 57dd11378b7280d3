"""Hold a plugin against the laws: one outcome a law, none of them silent."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from llmfw.core.errors import UsageError
from llmfw.testing.laws import Law, NotApplicable, laws
from llmfw.testing.subject import Subject

Status = Literal["passed", "failed", "skipped", "exempt", "exempt-but-passed"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one law. ``exempt``: it's broken, as the card says; ``exempt-but-passed`` is a failure,
    for the card's reason no longer holds.
    """

    plugin: str
    law: str
    statement: str
    status: Status
    message: str = ""
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether the plugin may be shipped with it."""
        return self.status in ("passed", "skipped", "exempt")


def laws_for(subject: Subject) -> tuple[Law, ...]:
    """The laws of the plugin's kinds."""
    return tuple(law for law in laws() if not law.kinds or set(law.kinds) & set(subject.kinds))


def check_law(subject: Subject, law: Law) -> Outcome:
    """Hold the plugin against one law."""
    start, message = time.monotonic(), ""
    try:
        law.check(subject)
        status: Status = "passed"
    except NotApplicable as reason:
        status, message = "skipped", str(reason)
    except Exception as error:
        status = "failed"
        message = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
    exemption = subject.card.xfail.get(law.id)
    if exemption is not None and status == "failed":
        status, message = "exempt", exemption
    elif exemption is not None and status == "passed":
        status = "exempt-but-passed"
        message = f"the card exempts it ({exemption}), but it holds; remove it from [conformance.xfail]"
    return Outcome(
        plugin=subject.name, law=law.id, statement=law.statement, status=status, message=message,
        seconds=time.monotonic() - start,
    )  # fmt: skip


def check_plugin(
    name: str,
    *,
    only: Sequence[str] = (),
    folder: Path | None = None,
    told: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Hold an installed plugin against every law of its kinds (or against ``only`` those), in order.

    Args:
        folder: where its runs go; None: a temporary folder.
        told: called with every outcome as it comes.

    Raises:
        UsageError: there is no such plugin or law, or an exemption from a law that doesn't exist.
    """
    with tempfile.TemporaryDirectory(prefix="llmfw-check-") as place:
        return list(_outcomes(Subject(name, folder or Path(place)), only, told))


def _outcomes(subject: Subject, only: Sequence[str], told: Callable[[Outcome], None]) -> Iterator[Outcome]:
    known = {law.id for law in laws()}
    for id in (*only, *subject.card.xfail):
        if id not in known:
            raise UsageError("LAW", f"there is no law {id!r}", mend=f"use one of {', '.join(sorted(known))}")
    for law in laws_for(subject):
        if not only or law.id in only:
            outcome = check_law(subject, law)
            told(outcome)
            yield outcome
