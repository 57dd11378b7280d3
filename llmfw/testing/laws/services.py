"""Laws of services; of executors in particular."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from llmfw.core.plan import Plan
from llmfw.core.records import CodeExecutor, Service
from llmfw.testing.attacks import ATTACKS, attack
from llmfw.testing.laws import NotApplicable, broken, law
from llmfw.testing.subject import Subject

_PROTOCOLS: dict[str, type] = {"CodeExecutor": CodeExecutor}
"""Protocols whose shape is known here; of any other a service need only be built."""


def _services(subject: Subject, plan: Plan) -> list[Service]:
    found = [answer.value for answer in plan.answers["llmfw_services"] if answer.plugin == subject.name]
    if not found:
        raise NotApplicable("it offers no service under the kit's settings")
    return found


@law("service-protocol", "service")
def service_protocol(subject: Subject) -> None:
    """A service is built when it's first asked for, not while the plan is made: no thread, process or open
    file before; each factory builds anew, the run shares what it built, and that has the protocol's methods.
    """
    subject.plan()  # whatever is imported or looked up once
    before = _alive()
    assembled = subject.assembled(verb="plan")
    for what, count in _alive().items():
        if count > before[what]:
            raise broken(
                f"making the plan left {count - before[what]} more {what}",
                mend="do it in the factory, which is called on first use",
            )
    for service in _services(subject, assembled.plan):
        built = assembled.run.service(service.protocol, service.name)
        if built is None:
            raise broken(
                f"the factory of {service.protocol} {service.name!r} built nothing", mend="return it"
            )
        if service.factory() is built:
            raise broken(
                f"{service.protocol} {service.name!r} is there before it's asked for: its factory gives one "
                "object whenever it's called",
                mend="build it in the factory; the run keeps it and shares it",
            )
        if service.protocol in _PROTOCOLS and not isinstance(built, _PROTOCOLS[service.protocol]):
            raise broken(
                f"{type(built).__name__} isn't a {service.protocol}",
                mend=f"give it the methods of llmfw.core.records.{service.protocol}",
            )


@law("executor-limits", "service")
def executor_limits(subject: Subject) -> None:
    """A CodeExecutor runs a program with its input and tells what became of it; time, memory, output and
    processes are limited; a program reaches no network, no file outside, no environment but its own, and
    leaves no process behind."""
    assembled = subject.assembled(verb="plan")
    found = [one for one in _services(subject, assembled.plan) if one.protocol == "CodeExecutor"]
    if not found:
        raise NotApplicable("it offers no CodeExecutor")
    for service in found:
        executor = assembled.run.service(service.protocol, service.name)
        failures = [told for one in ATTACKS if (told := attack(executor, one, subject.folder)) is not None]
        if failures:
            raise broken(
                f"{service.name}: {'; '.join(failures)}",
                mend="isolate programs by namespaces, limits and an empty environment",
            )


def _alive() -> dict[str, int]:
    """Threads, children and open files of this process."""
    found: dict[str, Callable[[], int]] = {
        "threads": threading.active_count,
        "open files": lambda: len(os.listdir("/proc/self/fd")),
        "processes": lambda: sum(map(_children, Path("/proc/self/task").iterdir())),
    }
    if not Path("/proc/self").exists():
        del found["open files"], found["processes"]
    return {what: count() for what, count in found.items()}


def _children(thread: Path) -> int:
    """Processes that a thread of this process started; 0: it has ended, or the kernel keeps no list."""
    try:
        return len((thread / "children").read_text().split())
    except OSError:
        return 0
