"""Evaluations that play episodes with the trained policy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from llmfw import Estimate, Evaluation, EvaluationResult
from llmfw.callbacks.intervals import share_interval
from llmfw.core.data import TextTokenizer
from llmfw.core.generation import context_length, encode_prompt

from .environments import Suite, close, names_of, open_suites
from .play.metrics import first_repeats, first_right, rates, spread
from .play.react import Episode, Generate, Reply, play
from .rows import NAME, Options, options_of

if TYPE_CHECKING:
    from .plugin import AgentRefine


def episodes(config: AgentRefine.Config, run: Any) -> list[Evaluation]:
    """The evaluation ``episodes`` after training; [] where no environment is named."""
    if not names_of(config.environments):
        return []
    data = run.config.data
    options = options_of(data.options) if data.name == NAME else Options()
    measure = partial(_measured, config, options, run.seed)
    return [Evaluation(name="episodes", run=measure, when=("end",))]


def _measured(
    config: AgentRefine.Config, options: Options, seed: int, policy: Any, services: Any
) -> EvaluationResult:
    suites = open_suites(config.environments, config.episodes, options)
    try:
        return measured(
            suites, asking(policy), max_turns=config.max_turns, max_retries=config.max_retries, seed=seed
        )
    finally:
        close(suites)


def measured(
    suites: Sequence[Suite], generate: Generate, *, max_turns: int, max_retries: int, seed: int
) -> EvaluationResult:
    """Metrics ``episodes/SUITE/NAME`` (names in ``play.metrics``; success with Wilson's 95% interval), and
    over all perturbations ``episodes/perturbed/success_mean``, ``/success_std`` (of the population) and
    ``/progress_mean``; over what was never trained (held_out and P1 to P5) ``episodes/unseen/success``,
    ``/progress``, ``/wrong`` and ``/diversity`` (0 without a thought). Table ``episodes``: a row an episode.
    """
    metrics: dict[str, float | Estimate] = {}
    table: list[dict[str, Any]] = []
    by_name = play(suites, generate, max_turns=max_turns, max_retries=max_retries, draw_seed=seed)
    for suite in suites:
        found = by_name[suite.name]
        metrics |= {f"episodes/{suite.name}/{name}": value for name, value in rates(found).items()}
        metrics[f"episodes/{suite.name}/success"] = share_interval(
            sum(one.success for one in found), len(found)
        )
        if suite.forced:
            repeats = first_repeats(found)
            metrics[f"episodes/{suite.name}/first_repeat"] = sum(repeats) / len(repeats)
            right = first_right(found)
            metrics[f"episodes/{suite.name}/first_right"] = sum(right) / len(right)
        table += [row_of(suite.name, one) for one in found]
    perturbed = {suite.name: by_name[suite.name] for suite in suites if suite.perturbed}
    if perturbed:
        for key in ("success", "progress"):
            values = {name: rates(found)[key] for name, found in perturbed.items()}
            mean, deviation = spread(values)
            metrics[f"episodes/perturbed/{key}_mean"] = mean
            metrics[f"episodes/perturbed/{key}_std"] = deviation
    unseen = [one for suite in suites if is_unseen(suite) for one in by_name[suite.name]]
    if unseen:
        told = rates(unseen)
        metrics |= {f"episodes/unseen/{key}": told[key] for key in ("success", "progress", "wrong")}
        # who thinks nothing has no thoughts that differ
        metrics["episodes/unseen/diversity"] = told.get("diversity", 0.0)
    return EvaluationResult(metrics=metrics, tables={"episodes": table})


def is_unseen(suite: Suite) -> bool:
    """Whether a suite tells the player in words or in a form that were never trained."""
    return suite.name == "held_out" or (suite.perturbed and suite.name != "perturbed/original")


def row_of(suite: str, episode: Episode) -> dict[str, Any]:
    """An episode as a row of a table: its first words, its actions (those that failed with a !), its end."""
    actions = [("!" if act.errors.any else "") + act.action for act in episode.acts]
    return {
        "suite": suite, "seed": episode.seed, "told": episode.messages[0]["content"].split("\n")[0],
        "actions": "; ".join(actions), "unread": episode.unread, "cut": episode.cut,
        "progress": episode.progress, "success": episode.success,
    }  # fmt: skip


def asking(policy: Any, **sampling: Any) -> Generate:
    """How episodes ask a policy: greedily, whatever the run's own settings are. Where a history outgrows the
    model's context, its oldest turns behind the instruction are left out.
    """
    room = _room(policy, sampling)
    settings = {**sampling, "samples": 1, "temperature": 0.0}
    # a reply that spells a token which ends a turn could not be read again as part of a history
    marks = TextTokenizer(policy.tokenizer).specials if policy.tokenizer is not None else ()

    def generate(asked: Sequence[list[dict[str, Any]]], names: Sequence[str]) -> list[Reply]:
        prompts = [messages if room is None else shortened(messages, policy.tokenizer, room)
                   for messages in asked]  # fmt: skip
        # episodes that were alike so far (held_in and perturbed/original often are) are answered once
        first: dict[str, int] = {}
        of = [first.setdefault(json.dumps(prompt), at) for at, prompt in enumerate(prompts)]
        places = list(first.values())
        answers = policy.generate(
            [prompts[at] for at in places], ids=[names[at] for at in places], **settings
        )
        by_place = dict(zip(places, answers, strict=True))
        return [
            Reply(text=_without(marks, by_place[at].text), cut=by_place[at].finish == "length") for at in of
        ]

    return generate


def _without(marks: Sequence[str], text: str) -> str:
    """The text with a blank in place of each control token that it spells."""
    for mark in marks:
        text = text.replace(mark, " ")
    return text


def shortened(messages: list[dict[str, Any]], tokenizer: Any, room: int) -> list[dict[str, Any]]:
    """The messages without as many of the oldest turns (the player's and the answer to it) as have to go for
    at most ``room`` tokens; instruction and last turn stay.
    """
    while len(messages) > 3 and len(encode_prompt(tokenizer, messages)) > room:
        messages = [messages[0], *messages[3:]]
    return messages


def _room(policy: Any, sampling: dict[str, Any]) -> int | None:
    """Tokens that a prompt may have; None: nobody knows a limit (scripts, endpoints, recurrent models)."""
    try:
        limit = context_length(policy.module)
    except NotImplementedError:
        return None
    longest = sampling.get("max_new_tokens") or policy.sampling.max_new_tokens
    return None if limit is None else max(1, limit - int(longest))
