"""What is measured after a round: problems solved, refined, and how well the critic finds errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from llmfw import Estimate, Evaluation, EvaluationResult, Row
from llmfw.callbacks.problems import solved

from .chains import Course, Roles, answers, courses
from .critics import NAMED, NONE, TRAINED, Critic, critic_for, ready
from .grammar import Form
from .localise import NAME as CRITIC
from .localise import labelled, measured
from .measure import NAME, before_and_after, gain, one_behind_another, plain, side_by_side, table
from .sampler import LEARNT
from .settings import CritiqueLoopConfig
from .store import kept

_PLAIN = 4
"""Plain answers per chain: a chain costs an answer, a critique and a refinement, so about three of them."""


def evaluations(config: CritiqueLoopConfig, run: Any) -> list[Evaluation]:
    """Those that the settings ask for; in the critic's own round only the critic is measured."""
    found = [replace(one, run=_not_of_critic(config, run, one.run)) for one in solved(config, run)]
    if config.test_time and config.critic != NONE:
        found.append(Evaluation(name=NAME, run=lambda p, s: critiqued(config, run, p, s), when=("end",)))
    if config.problems and (config.critic == TRAINED or config.critic not in NAMED):
        found.append(Evaluation(name=CRITIC, run=lambda p, s: critic(config, run, p), when=("end",)))
    return found


def critics_round(config: CritiqueLoopConfig, run: Any) -> bool:
    """Whether the policy under training is the critic: its records are written, and it isn't kept yet."""
    return config.critic == TRAINED and kept(run.dir, LEARNT) and not ready(config, run)


def _not_of_critic(
    config: CritiqueLoopConfig, run: Any, measure: Callable[[Any, Any], EvaluationResult]
) -> Callable[[Any, Any], EvaluationResult]:
    def run_it(policy: Any, services: Any) -> EvaluationResult:
        return EvaluationResult() if critics_round(config, run) else measure(policy, services)

    return run_it


def critic(config: CritiqueLoopConfig, run: Any, policy: Any) -> EvaluationResult:
    """The critic on responses whose first wrong step is known, in its own round; a model that was made
    beforehand each time.
    """
    rows = held_out(config, run)
    if config.critic == TRAINED and not ready(config, run):
        if not critics_round(config, run):
            return EvaluationResult()
        who = Critic(policy)
    elif config.critic == TRAINED and kept(run.dir, LEARNT):
        return EvaluationResult()  # it was measured in its round
    else:
        who = critic_for(config, run, rows, policy.tokenizer)
    numbers, lines = measured(who, labelled(rows, run.seed), form_of(config), config.critique_tokens)
    return EvaluationResult(metrics=numbers, tables={CRITIC: lines})


def critiqued(config: CritiqueLoopConfig, run: Any, policy: Any, services: Any) -> EvaluationResult:
    """Held-out problems answered, criticised and refined: greedily; with K = ``test_time`` above 1 also in K
    chains and in K rounds.
    """
    rows = held_out(config, run)
    if not rows or not ready(config, run):
        return EvaluationResult()
    roles = Roles(
        actor=policy,
        critic=critic_for(config, run, rows, policy.tokenizer),
        judge=services("Verifier", config.verifier),
        form=form_of(config),
        config=config,
        temperature=0.0,
        seed=run.seed,
    )
    greedy = [group[0] for group in courses(roles, rows, 1, 1, NAME)]
    found: dict[str, float | Estimate] = dict(before_and_after(greedy))
    tables: dict[str, Any] = {NAME: table(greedy, config.refine)}
    if config.test_time > 1:
        numbers, tables[f"{NAME}_scaling"] = scaling(replace(roles, temperature=config.temperature), rows)
        found |= numbers
    return EvaluationResult(metrics=found, tables=tables)


def scaling(roles: Roles, rows: Sequence[Row]) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Majority and pass of 1, 2, 4 ... K chains, of as many rounds, and of plain answers, each with the
    tokens that all its calls generated for a problem; and what chains gain at equal tokens.
    """
    config, k = roles.config, roles.config.test_time
    wide = courses(roles, rows, k, 1, f"{NAME}/parallel")
    deep: list[Course] = [group[0] for group in courses(roles, rows, 1, k, f"{NAME}/sequential")]
    alone = answers(roles, rows, _PLAIN * k, f"{NAME}/plain")
    lines = [
        *side_by_side(wide, k),
        *one_behind_another(deep, k, only_final=config.only_final),
        *plain(alone, _PLAIN * k),
    ]
    found = {
        f"{NAME}/{line['mode']}/{what}@{line['k']}": float(line[what])
        for line in lines
        for what in ("maj", "pass", "tokens")
    }
    for line in lines:
        if line["mode"] == "parallel":
            for what in ("maj", "pass"):
                found[f"{NAME}/gain/{what}@{line['k']}"] = gain(lines, line["k"], what)
    return found, lines


def held_out(config: CritiqueLoopConfig, run: Any) -> list[Row]:
    """The problems that are measured."""
    rows: list[Row] = list(run.rows("validation"))[: config.problems]
    return rows


def form_of(config: CritiqueLoopConfig) -> Form:
    """In which form critiques are written."""
    return "compact" if config.form == "compact" else "paper"
