"""Laws of every plugin: its card, its settings, its hooks, its silence at birth."""

from __future__ import annotations

from llmfw.testing.laws import broken, law
from llmfw.testing.subject import Subject


@law("plan-is-pure")
def plan_is_pure(subject: Subject) -> None:
    """Asking the plugin's hooks twice gives the same plan: hooks draw nothing, count nothing."""
    first, second = subject.plan(), subject.plan()
    if first.hash != second.hash:
        raise broken(
            "two plans of the same settings differ",
            mend="let hooks return the same records whenever they are asked",
        )
