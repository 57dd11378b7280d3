"""The last law: what the other ones found lying about."""

from __future__ import annotations

from llmfw.testing.laws import broken, law
from llmfw.testing.subject import Subject


@law("leaves-no-trace")
def leaves_no_trace(subject: Subject) -> None:
    """After a run or an answer the process is as it was: working folder, environment, sys.path,
    signal handlers, torch's threads, dtype, device and modes.

    Looked at around every other law that was held; what importing the plugin changes is the matter of
    ``quiet-birth``.
    """
    if subject.traces:
        law_id, what = subject.traces[0]
        others = f" (and {len(subject.traces) - 1} more)" if len(subject.traces) > 1 else ""
        raise broken(
            f"{what} was changed while {law_id} was checked, and not changed back{others}",
            mend="let what a record's functions change in the process be undone when they end, also on error",
        )
