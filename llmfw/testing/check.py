"""Hold a plugin against the laws: one outcome a law, none of them silent."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from llmfw.core.errors import LlmfwError, UsageError
from llmfw.testing import birth, traces
from llmfw.testing.laws import Law, NotApplicable, Violation, laws
from llmfw.testing.subject import Subject

Status = Literal["passed", "failed", "skipped", "exempt", "exempt-but-passed"]
Around = Callable[[Law], AbstractContextManager[object]]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one law. ``exempt``: it's broken, as the card says; ``exempt-but-passed`` is a failure,
    for the card's reason no longer holds; so is an exception that isn't the law's, whatever the card says.
    """

    plugin: str
    law: str
    statement: str
    status: Status
    message: str = ""
    """Why it was skipped or exempt; what is broken, and how to mend it."""
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether the plugin may be shipped with it."""
        return self.status in ("passed", "skipped", "exempt")


def laws_for(subject: Subject) -> tuple[Law, ...]:
    """The laws of the plugin's kinds."""
    return tuple(law for law in laws() if not law.kinds or set(law.kinds) & set(subject.kinds))


def check_law(subject: Subject, law: Law) -> Outcome:
    """Hold the plugin against one law. What the law's runs leave changed in the process is put back, and
    noted for the law ``leaves-no-trace``.
    """
    born(subject)
    start, message, before, found = time.monotonic(), "", traces.look(), False
    try:
        law.check(subject)
        status: Status = "passed"
    except NotApplicable as reason:
        status, message = "skipped", str(reason)
    except (Exception, SystemExit) as error:
        status, message, found = "failed", _told(error), isinstance(error, Violation)
    subject.traces += [(law.id, what) for what in traces.differences(before, traces.look())]
    traces.put_back(before)
    exemption = subject.card.xfail.get(law.id)
    if exemption is not None and found:
        status, message = "exempt", exemption
    elif exemption is not None and status == "failed":
        message += (
            f"; the card exempts it ({exemption}), which covers what the law finds, not an error on the way"
        )
    elif exemption is not None and status == "passed":
        status = "exempt-but-passed"
        message = f"the card exempts it ({exemption}), but it holds; remove it from [conformance.xfail]"
    return Outcome(
        plugin=subject.name, law=law.id, statement=law.statement, status=status, message=message,
        seconds=time.monotonic() - start,
    )  # fmt: skip


def _told(error: BaseException) -> str:
    """An exception in one line: a violation or an error of ours speaks for itself."""
    told = str(error) if isinstance(error, (AssertionError, LlmfwError)) else ""
    return " ".join((told or f"{type(error).__name__}: {error}").split())


def born(subject: Subject) -> None:
    """Import the plugin; what that changes in the process is put back: ``quiet-birth`` tells of it."""
    before = traces.look()
    with suppress(LlmfwError):  # each law that needs the class says so
        _ = subject.plugin_class
    traces.put_back(before)


def check_plugin(
    name: str,
    *,
    only: Sequence[str] = (),
    folder: Path | None = None,
    told: Callable[[Outcome], None] = lambda outcome: None,
    around: Around = lambda law: nullcontext(),
) -> list[Outcome]:
    """Hold an installed plugin against every law of its kinds (or against ``only`` those), in order.

    Args:
        folder: where its runs go; None: a temporary folder.
        told: called with every outcome as it comes.
        around: ``around(law)`` is entered while that law is checked, e.g. to show or hide what its runs say.

    Raises:
        UsageError: there is no such plugin or law, or an exemption from a law that doesn't exist.
        PluginError: the plugin's card can't be read, or the plugin can't be imported.
    """
    with tempfile.TemporaryDirectory(prefix="llmfw-check-", ignore_cleanup_errors=True) as place:
        return list(_outcomes(Subject(name, folder or Path(place)), only, told, around))


def _outcomes(
    subject: Subject, only: Sequence[str], told: Callable[[Outcome], None], around: Around
) -> Iterator[Outcome]:
    known_laws(only)
    known_exemptions(subject)
    _ = subject.plugin_class
    if not only or "quiet-birth" in only:
        birth.begin()
    for law in laws_for(subject):
        if not only or law.id in only:
            with around(law):
                outcome = check_law(subject, law)
            told(outcome)
            yield outcome


def known_laws(ids: Sequence[str]) -> None:
    """Raise UsageError for an id that is no law's."""
    from difflib import get_close_matches

    known = [law.id for law in laws()]
    for id in ids:
        if id not in known:
            near = get_close_matches(id, known, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"laws are {', '.join(known)}"
            raise UsageError("LAW", f"there is no law {id!r}", mend=hint)


def something_to_hold(found: Collection[object], only: Sequence[str]) -> None:
    """Raise UsageError where laws were asked for and none of them was found: nothing would be checked."""
    if only and not found:
        raise UsageError(
            "LAW",
            f"{', '.join(only)}: no law of these plugins' kinds, so nothing was checked",
            mend="`llmfw plugins check --list NAME` tells the laws of a plugin",
        )


def known_exemptions(subject: Subject) -> None:
    """Raise UsageError for an exemption on the card from a law that doesn't exist, or that isn't of the
    plugin's kinds.
    """
    known_laws(list(subject.card.xfail))
    own = {law.id for law in laws_for(subject)}
    for id in subject.card.xfail:
        if id not in own:
            file = subject.card.folder / "card.toml" if subject.card.folder else None
            raise UsageError(
                "LAW",
                f"plugin {subject.name!r} is exempt from {id!r}, a law of other kinds",
                mend="remove it",
                file=file,
                key=f"conformance.xfail.{id}",
            )


def parametrize_with_checks(
    plugins: Sequence[str], *, only: Sequence[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator of a pytest function with the argument ``check``: one test for each plugin and law of its
    kinds, with the id ``PLUGIN-LAW``. The tests of one plugin share their runs.

        @parametrize_with_checks(["mine"])
        def test_it_keeps_the_law(check):
            check()

    A skipped law is a skipped test; a law from which the card exempts the plugin is an expected failure, and
    fails where it holds.

    Raises:
        UsageError: ``only`` names laws that don't exist, or none of the plugins' kinds.
    """
    import pytest

    known_laws(only)
    cases = []
    for name in plugins:
        subject = _kept(name)
        known_exemptions(subject)
        chosen = [law for law in laws_for(subject) if not only or law.id in only]
        cases += [pytest.param(_test_of(name, law), id=f"{name}-{law.id}") for law in chosen]
    something_to_hold(cases, only)
    decorate: Callable[[Callable[..., None]], Callable[..., None]] = pytest.mark.parametrize("check", cases)
    return decorate


def _test_of(name: str, law: Law) -> Callable[[], None]:
    def check() -> None:
        import pytest

        outcome = check_law(_kept(name), law)
        if outcome.status == "skipped":
            pytest.skip(outcome.message)
        if outcome.status == "exempt":
            pytest.xfail(outcome.message)
        if not outcome.good:
            pytest.fail(f"{outcome.message}\n\nThe law {law.id}: {law.statement}", pytrace=False)

    return check


_PLACES: list[tempfile.TemporaryDirectory[str]] = []
"""Folders of the tests' runs, removed when the process ends."""


@cache
def _kept(name: str) -> Subject:
    """The subject that all tests of a plugin in this process share."""
    _PLACES.append(tempfile.TemporaryDirectory(prefix=f"llmfw-check-{name}-", ignore_cleanup_errors=True))
    return Subject(name, Path(_PLACES[-1].name))
