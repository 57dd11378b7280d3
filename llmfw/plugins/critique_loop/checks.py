"""What a run of the loop can't do without: settings that go together and models that are there, looked for
before anything is loaded; rows whose steps are known and problems enough, before the first round.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmfw import LlmfwError, Row
from llmfw.core.data import chain_of

from .critics import KEPT, NAMED, NOISY, ORACLE, TRAINED
from .errors import CritiqueError, CritiqueSettingsError
from .settings import CritiqueLoopConfig
from .stages import ACTOR, CRITIC, before, for_critic, parted


def check_settings(config: CritiqueLoopConfig, run: Any) -> None:
    """Refuse settings that can't be together, inside the hook: before anything is loaded.

    Raises:
        CritiqueSettingsError: NO-ACTOR.
        LlmfwError: NO-MODEL, a model that is named doesn't exist.
    """
    if before(config) == [CRITIC]:
        raise CritiqueSettingsError(
            "NO-ACTOR",
            "before the loop the critic alone is trained, so nothing would answer the problems",
            mend="set critique_loop.gold=true or critique_loop.feedback=true",
            key="critique_loop.critic",
        )
    if config.critic not in NAMED:
        run.expect_policy(config.critic, setting="critique_loop.critic")
    if config.annotator != ORACLE and {ACTOR, CRITIC} & set(before(config)):
        run.expect_policy(config.annotator, setting="critique_loop.annotator")


def check(config: CritiqueLoopConfig, run: Any, rows: Sequence[Row]) -> None:
    """Refuse a training that would fail in a later round, before its first one.

    Raises:
        CritiqueSettingsError: CRITIC-NAME.
        CritiqueError: NO-CHAIN, NO-SPLIT.
    """
    if config.critic == TRAINED and KEPT in run.config.models:
        raise CritiqueSettingsError(
            "CRITIC-NAME",
            f"models.{KEPT} is set, and the run trains a critic that would take its name",
            mend=f"give models.{KEPT} another name, and that one to critique_loop.critic",
            key="critique_loop.critic",
        )
    theirs = [row for row in rows if for_critic(config, row)]
    if parted(config):
        _split(config, len(theirs), len(rows) - len(theirs))
    if config.annotator == ORACLE and {ACTOR, CRITIC} & set(before(config)):
        _chains(theirs if parted(config) else rows, "annotator", config.annotator)
    if config.critic in (ORACLE, NOISY):
        _chains(rows, "critic", config.critic)
        if config.test_time:
            _chains(run.rows("validation")[: config.problems], "critic", config.critic)


def _split(config: CritiqueLoopConfig, theirs: int, others: int) -> None:
    if theirs and others:
        return
    whom = "the loop" if theirs else "the critic"
    raise CritiqueError(
        "NO-SPLIT",
        f"critique_loop.critic_share={config.critic_share:g} of {theirs + others} problems leaves none to "
        f"{whom}",
        mend="give more problems, or a share nearer to a half",
        key="critique_loop.critic_share",
    )


def _chains(rows: Sequence[Row], key: str, name: str) -> None:
    """Refuse rows whose right steps nobody knows, where a scripted critic has to."""
    for row in rows:
        try:
            chain_of(row)
        except LlmfwError as error:
            raise CritiqueError(
                "NO-CHAIN",
                f"row {row.get('id')!r} is no chain of operations: which of its steps are right isn't known "
                f"to {name}",
                mend=f"use data=chain-arithmetic, or name a model of models.NAME in critique_loop.{key}",
                key=f"critique_loop.{key}",
            ) from error
