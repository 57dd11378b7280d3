"""Laws of plugins beside one another: against every other one that is installed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmfw.core import discovery
from llmfw.core.errors import ConflictError, LlmfwError, UsageError
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


@dataclass(frozen=True)
class _Pair:
    """What became of two plugins together: their plan and its settings, or what stands against it."""

    other: str
    plan: Plan | None
    settings: dict[str, str]
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
    surgeries of one phase, generation) and makes a plan with it, it trains a step, or answers a prompt.
    """
    near = [pair for pair in _pairs(subject) if pair.plan is not None and _meet(subject, pair)]
    if not near:
        raise NotApplicable("no other installed plugin that it makes a plan with speaks at the same place")
    for pair in near:
        both = [subject.name, pair.other]
        try:
            if not all("fit" in discovery.card(name).verbs for name in both):
                subject.generate(["1 + 1?"], pair.settings, plugins=both, max_new_tokens=2)
            else:
                subject.fit({**pair.settings, "trainer.max_steps": "1"}, plugins=both)
        except LlmfwError as error:
            raise broken(
                f"together with {pair.other!r} it plans, but doesn't run: {error.what}",
                mend="leave room for others: read only what is yours of batches, models and metrics, or "
                "declare conflicts_with in card.toml",
            ) from error


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
        pair = _pair(subject, other, [subject.name, other])
        turned = _pair(subject, other, [other, subject.name])
        yield pair if pair.error is not None else turned


def _pair(subject: Subject, other: str, plugins: list[str]) -> _Pair:
    """Their plan over the first form of rows that both can take."""
    first: LlmfwError | None = None
    for settings in _candidates(subject):
        try:
            plan, settled = _settled(subject, settings, plugins)
        except LlmfwError as error:
            if first is None or first.code == "LOSS-DATA":
                first = error
        else:
            return _Pair(other, plan, settled)
    return _Pair(other, None, {}, first)


def _settled(subject: Subject, settings: dict[str, str], plugins: list[str]) -> tuple[Plan, dict[str, str]]:
    """The plan, and the settings with which it could be made: where two overlays differ, a user would be told
    to choose; here the subject's own value is chosen.
    """
    while True:
        try:
            return subject.plan(settings, plugins=plugins), settings
        except ConflictError as error:
            if error.code != "CONFIG-CONFLICT" or error.key is None or error.key in settings:
                raise
            own = subject.plan().settings.get(error.key)
            settings = {**settings, error.key: json.dumps(own)}


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
