"""The rounds: solutions, [critiques and their refinements], [the critic], then the loop (arXiv 2411.16579).

The rounds of the loop are numbered as a self-training without a critic numbers them, so that its samples are
drawn with the same random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from llmfw import Round, Row
from llmfw.core.data import answer_of
from llmfw.core.generation import Collected, Rollouts, gold_rows, self_training

from .asking import to_critic, to_refine
from .builder import GIVEN, annotator_of, build, filtered
from .checks import check, check_settings
from .critics import KEPT, critic_for
from .grammar import Form
from .loop import collect, told
from .settings import CritiqueLoopConfig
from .stages import ACTOR, CRITIC, GOLD, before, for_critic, parted
from .store import keep, kept, load

BUILT, LEARNT = "critiques", "critic-records"
"""What the run keeps: all annotated critiques, and those that the critic's round trains."""
_BUILDING, _FILTERING = -1, -2
"""Numbers in place of a round's, so that their random numbers are no round's of the loop."""


def critique_loop(config: CritiqueLoopConfig, run: Any) -> Callable[..., Round | None]:
    """The sampler's ``next``; what a later round would fail for is refused here or when it's first called.

    Raises:
        CritiqueSettingsError: NO-ACTOR.
        LlmfwError: NO-MODEL.
    """
    check_settings(config, run)
    form: Form = "compact" if config.form == "compact" else "paper"
    stages = before(config)

    def found_by(rollouts: Rollouts, rows: Sequence[Row]) -> Collected:
        mine = [row for row in rows if not for_critic(config, row)]
        critic = critic_for(config, run, mine, rollouts.policy.tokenizer)
        found = collect(config, critic, form, rollouts, mine)
        collected = found.collected
        made = list(collected.rows or ())
        if critic.policy is not None:
            keep(run.dir, f"traces-{rollouts.index}", told(found.traces, rollouts.index))
        made += earlier(config, run, rollouts.index, made)
        if config.keep_feedback and kept(run.dir, BUILT):
            again = feedback_rows(load(run.dir, BUILT), rows, form, f".{rollouts.index}")
            # nobody has sampled them: they don't count as answers to their problems
            made += [{key: value for key, value in row.items() if key != "problem"} for row in again]
        # where nobody has criticised, the frame makes the records, and tells of them, as it does for rft
        return replace(collected, rows=made if critic.policy is not None or config.previous else None)

    loop = self_training(config, run, found_by, name="critique_loop")

    def next_round(index: int, rows: Sequence[Row], policy: Any, services: Any, ledger: Any) -> Round | None:
        if index == 0:
            check(config, run, rows)
        if index < config.gold:
            return loop(index, rows, policy, services, ledger)
        if index >= len(stages):
            first = index == len(stages) and stages[-1:] == [CRITIC]
            actor = run.policy(GOLD) if first else policy  # the round before has made the critic
            made = loop(index - len(stages) + config.gold, rows, actor, services, ledger)
            return replace(made, start=GOLD) if first and made and made.start == "last" else made
        rollouts = Rollouts(
            policy=policy,
            ledger=ledger,
            verifier=services("Verifier", config.verifier),
            index=_BUILDING,
            seed=run.seed,
            temperature=config.temperature,
        )
        if stages[index] == ACTOR:
            return actor_round(config, run, rollouts, rows, form)
        return critic_round(config, run, rollouts, rows, form)

    return next_round


def actor_round(
    config: CritiqueLoopConfig, run: Any, rollouts: Rollouts, rows: Sequence[Row], form: Form
) -> Round:
    """The model with which the loop begins: solutions, and annotated critiques with their refinements."""
    records, notes = built(config, run, rollouts, rows)
    made = gold_rows(rows) if config.gold else []
    return Round(
        records=[*made, *feedback_rows(records, rows, form)],
        start="base" if config.start == "base" or not config.gold else GOLD,
        keep_as=GOLD,
        epochs=config.gold_epochs if config.feedback_epochs is None else config.feedback_epochs,
        notes=notes,
    )


def critic_round(
    config: CritiqueLoopConfig, run: Any, rollouts: Rollouts, rows: Sequence[Row], form: Form
) -> Round:
    """The critic: the critiques that help the actor, as answers to a problem and a response."""
    records, notes = (load(run.dir, BUILT), {}) if config.feedback else built(config, run, rollouts, rows)
    left, more = filtered(config, replace(rollouts, index=_FILTERING), records, rows, form)
    keep(run.dir, LEARNT, left)
    row_of = {str(row["id"]): row for row in rows}
    made = [
        {
            "id": one["id"],
            "prompt": to_critic(row_of[one["problem"]], one["response"], form),
            "completion": one["critique"],
            "problem": one["problem"],
        }
        for one in left
    ]
    return Round(
        records=made,
        start=config.critic_start,
        keep_as=KEPT,
        epochs=config.gold_epochs if config.critic_epochs is None else config.critic_epochs,
        notes={**notes, **more},
    )


def built(
    config: CritiqueLoopConfig, run: Any, rollouts: Rollouts, rows: Sequence[Row]
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """(annotated critiques, numbers), kept in the run's folder for later rounds."""
    mine = [row for row in rows if for_critic(config, row)] if parted(config) else list(rows)
    records, notes = build(config, rollouts, mine, annotator_of(config, run))
    keep(run.dir, BUILT, records)
    return records, notes


def earlier(config: CritiqueLoopConfig, run: Any, index: int, made: Sequence[Row]) -> list[Row]:
    """With ``previous``: what earlier rounds of the loop have kept; this round's is kept for later ones."""
    if not config.previous:
        return []
    keep(run.dir, f"kept-{index}", made)
    return [row for number in range(int(config.gold), index) for row in load(run.dir, f"kept-{number}")]


def feedback_rows(
    records: Sequence[dict[str, Any]], rows: Sequence[Row], form: Form, mark: str = ""
) -> list[Row]:
    """To each annotated critique its refinement: the problem's own solution, or the response where that was
    right.
    """
    row_of = {str(row["id"]): row for row in rows}
    return [
        {
            "id": f"{one['id']}.fb{mark}",
            "prompt": to_refine(row_of[one["problem"]], one["response"], one["critique"], form),
            "completion": one["response"] if one["origin"] == GIVEN else answer_of(row_of[one["problem"]]),
            "problem": one["problem"],
        }
        for one in records
    ]
