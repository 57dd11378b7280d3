"""Laws of plugins beside one another: against every other one that is installed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llmfw.core import discovery
from llmfw.core.errors import ConflictError, DataError, LlmfwError, UsageError
from llmfw.testing.laws import NotApplicable, broken, law
from llmfw.testing.subject import FORMS, Subject

if TYPE_CHECKING:
    from llmfw.core.plan import Plan

_FAMILIES = (
    ("llmfw_datamodule", "llmfw_dataset_transforms", "llmfw_sampler"),
    ("llmfw_loss", "llmfw_metrics/train", "llmfw_metrics/validation", "llmfw_callbacks"),
    ("llmfw_evaluations",),
    ("llmfw_kv_cache", "llmfw_decoder"),
)
"""Hooks whose answers act on the same thing; surgeries are of the family of their phase."""

_WHATEVER_THE_ROWS = ("LOSS-ROUNDS", "PLUGINS-CONFLICT", "TWO-OWNERS")
"""Conflicts that other rows can't mend."""


@dataclass(frozen=True)
class _Pair:
    """What became of two plugins together: their plan and its rows, or what stands against it."""

    other: str
    plan: Plan | None = None
    rows: Mapping[str, str] = field(default_factory=dict)
    """Of ``_candidates``."""
    chosen: dict[str, str] = field(default_factory=dict)
    """Settings where their overlays differ, as of ``_plan``."""
    error: LlmfwError | None = None


@law("company-plans")
def company_plans(subject: Subject) -> None:
    """With each other installed plugin it makes one plan, whichever is named first, or one conflict that
    names both. No weight is read.
    """
    for pair in _pairs(subject):
        if pair.error is None:
            continue
        if not isinstance(pair.error, UsageError):
            raise broken(
                f"together with {pair.other!r} there is neither a plan nor a conflict: {pair.error.what}",
                mend="let hooks look at nothing but their own settings and what they are given; declare "
                "conflicts_with in card.toml where the two can't be together",
            )
        told = str(pair.error)
        silent = [name for name in (subject.name, pair.other) if not re.search(rf"\b{name}\b", told)]
        # a loss and rows that it can't take: the data are the kit's, so one name is all there is
        if silent and not (pair.error.code == "LOSS-DATA" and len(silent) == 1):
            raise broken(
                f"the conflict with {pair.other!r} doesn't name {silent[0]!r}: {pair.error.what}",
                mend="declare conflicts_with in card.toml, or let the core find it: return the record, and "
                "what it refuses",
            )


@law("company-steps")
def company_steps(subject: Subject) -> None:
    """With each other installed plugin that speaks at the same place (data, loss and metrics, evaluations,
    surgeries of one phase, generation) and makes a plan with it, it trains a step over rows that both can
    read, or answers a prompt.
    """
    near = [pair for pair in _pairs(subject) if pair.plan is not None and _meet(subject, pair)]
    if not near:
        raise NotApplicable("no other installed plugin that it makes a plan with speaks at the same place")
    if not sum([_judged(subject, pair) for pair in near]):
        others = ", ".join(repr(pair.other) for pair in near)
        raise NotApplicable(f"of the kit's rows there are none that both it and another of {others} can read")


def _judged(subject: Subject, pair: _Pair) -> bool:
    """Run the two over the kit's rows; False: over all of them one of the two fails already alone, or can't
    read the rows that the other brings.

    Raises:
        Violation: they don't run together, and neither fails alone.
    """
    both, forms = [subject.name, pair.other], list(_candidates(subject))
    trains = all("fit" in discovery.card(name).verbs for name in both)
    for rows in forms[forms.index(dict(pair.rows)) :]:
        try:
            if rows != pair.rows:
                _plan(subject, rows, both, pair.chosen)
        except LlmfwError:
            continue
        settings = {**pair.chosen, **rows}
        error = _failure(subject, settings, both, trains=trains)
        if error is None:
            return True
        if error.exit_code == DataError.exit_code and _brings_rows(pair):
            continue
        if not any(_fails_alone(subject, settings, name, trains=trains) for name in both):
            raise broken(
                f"together with {pair.other!r} it plans, but doesn't run: {error.what}",
                mend="leave room for others: read only what is yours of batches, models and metrics, or "
                "declare conflicts_with in card.toml",
            ) from error
    return False


def _brings_rows(pair: _Pair) -> bool:
    """Whether the rows are one plugin's own, which the other may be unable to read whatever the kit gives."""
    return pair.plan is not None and bool(pair.plan.answers.get("llmfw_datamodule"))


def _fails_alone(subject: Subject, settings: Mapping[str, str], name: str, *, trains: bool) -> bool:
    """Whether a run of the one plugin fails. Where it needs the other one for a plan, e.g. a service beside a
    loss over pairs, it has no run of its own with these rows, and so none that fails.
    """
    try:
        subject.plan(settings, plugins=[name])
    except LlmfwError:
        return False
    return _failure(subject, settings, [name], trains=trains) is not None


def _failure(
    subject: Subject, settings: Mapping[str, str], plugins: list[str], *, trains: bool
) -> LlmfwError | None:
    """What keeps these plugins from training a step, or from answering a prompt; None: nothing."""
    try:
        if trains:
            subject.fit({**settings, "trainer.max_steps": "1"}, plugins=plugins)
        else:
            subject.generate(["1 + 1?"], settings, plugins=plugins, max_new_tokens=2)
    except LlmfwError as error:
        return error
    return None


def _pairs(subject: Subject) -> list[_Pair]:
    """The plugin with each other one; both laws look at the same plans."""
    return subject.once("company", lambda: list(_all_pairs(subject)))


def _all_pairs(subject: Subject) -> Iterator[_Pair]:
    others = [name for name in discovery.cards() if name != subject.name]
    if not others:
        raise NotApplicable("no other plugin is installed")
    for other in others:
        try:
            discovery.load_class(discovery.card(other))
        except LlmfwError:
            continue  # broken by itself: its own check says so
        chosen: dict[str, str] = {}
        pair = _pair(subject, other, [subject.name, other], chosen)
        yield pair if pair.error is not None else _pair(subject, other, [other, subject.name], chosen)


def _pair(subject: Subject, other: str, plugins: list[str], chosen: dict[str, str]) -> _Pair:
    """Their plan over the first form of rows that both can take."""
    first: LlmfwError | None = None
    for rows in _candidates(subject):
        try:
            return _Pair(other, _plan(subject, rows, plugins, chosen), rows, chosen)
        except LlmfwError as error:
            if first is None or first.code == "LOSS-DATA":
                first = error
            if error.code in _WHATEVER_THE_ROWS:
                break
    return _Pair(other, error=first)


def _plan(subject: Subject, rows: Mapping[str, str], plugins: list[str], chosen: dict[str, str]) -> Plan:
    """The plan. Where two overlays differ, a user would be told to choose: here the subject's own value is
    chosen, and noted in ``chosen``.
    """
    while True:
        settings = {**chosen, **rows}
        try:
            return subject.plan(settings, plugins=plugins)
        except ConflictError as error:
            if error.code != "CONFIG-CONFLICT" or error.key is None or error.key in settings:
                raise
            own = subject.once("own settings", lambda: subject.plan().settings)
            chosen[error.key] = json.dumps(own.get(error.key))


def _candidates(subject: Subject) -> Iterator[dict[str, str]]:
    """Settings in which the data differ, the plugin's own first."""
    yield {}
    data = subject.settings.get("data", "")
    yield from (
        {"data": str(subject.data(form))}
        for form in FORMS
        if data.startswith(str(subject.folder)) and data != str(subject.data(form))
    )


def _meet(subject: Subject, pair: _Pair) -> bool:
    """Whether both speak at one place."""
    assert pair.plan is not None
    mine, theirs = (_places(pair.plan, name) for name in (subject.name, pair.other))
    return bool(mine & theirs)


def _places(plan: Plan, name: str) -> set[str]:
    found = set()
    for hook, answers in plan.answers.items():
        for answer in answers:
            if answer.plugin != name:
                continue
            if hook == "llmfw_surgeries":
                found.add(f"{hook}/{answer.value.phase}")
            found |= {family[0] for family in _FAMILIES if hook in family}
    return found
