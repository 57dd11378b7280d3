"""Critics as policies: trained in the run, scripted ones that know the truth or err at set rates, one that
says nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from llmfw import LlmfwError, Row
from llmfw.core.generation import ScriptedPolicy, prompt_of

from .asking import Messages
from .errors import CritiqueError
from .grammar import Critique, Form, parse, render
from .settings import CritiqueLoopConfig
from .steps import noisy_critique, question_of, true_critique

NONE, SILENT, ORACLE, NOISY, TRAINED = "none", "silent", "oracle", "noisy", "trained"
NAMED = (NONE, SILENT, ORACLE, NOISY, TRAINED)
"""What ``critic`` may say beside the name of a model."""
KEPT = "critic"
"""The name under which the trained critic is kept."""
Truth = Callable[[Row, str], Critique]


@dataclass(frozen=True)
class Critic:
    """Who criticises. ``policy`` is None where nobody does."""

    policy: Any
    silent: bool = False
    """It never says anything: its critiques aren't read."""


def critic_for(config: CritiqueLoopConfig, run: Any, rows: Sequence[Row], tokenizer: Any) -> Critic:
    """The critic of the settings.

    Args:
        rows: the problems that it may be asked about; scripted critics look the truth up in them.
        tokenizer: counts the tokens of what a scripted critic says; None: they count for nothing.

    Raises:
        LlmfwError: the model that is named doesn't exist, or a row's steps aren't known to an oracle.
    """
    own: dict[str, Callable[[], Any]] = {
        NONE: lambda: None,
        SILENT: lambda: ScriptedPolicy(lambda prompts: [""] * len(prompts)),
        ORACLE: lambda: scripted(truth_of(config, run.seed), rows, _form(config), tokenizer),
        NOISY: lambda: scripted(truth_of(config, run.seed), rows, _form(config), tokenizer),
        TRAINED: lambda: run.policy(KEPT),
    }
    make = own.get(config.critic, lambda: run.policy(config.critic))
    return Critic(make(), silent=config.critic == SILENT)


def ready(config: CritiqueLoopConfig, run: Any) -> bool:
    """Whether the critic is there: a trained one isn't until its round has ended."""
    if config.critic in (NONE, SILENT, ORACLE, NOISY):
        return config.critic != NONE
    try:
        run.identity(KEPT if config.critic == TRAINED else config.critic)
    except LlmfwError:
        if config.critic == TRAINED:
            return False
        raise
    return True


def truth_of(config: CritiqueLoopConfig, seed: int) -> Truth:
    """The oracle's critique of a response, or the noisy one's."""
    if config.critic == NOISY:
        return partial(
            noisy_critique,
            miss=config.noise_miss,
            alarm=config.noise_alarm,
            place=config.noise_place,
            seed=seed,
            explain=config.explain,
            after_error=config.after_error,
        )
    return partial(true_critique, explain=config.explain, after_error=config.after_error)


def scripted(truth: Truth, rows: Sequence[Row], form: Form, tokenizer: Any = None) -> ScriptedPolicy:
    """A policy that answers a critic's prompt with the truth; where the form can't say it, with nothing."""
    known = {_key(question_of(prompt_of(row))): row for row in rows}

    def answer(prompts: Sequence[Any]) -> list[str]:
        return [
            _written(truth(known[_key(prompt[:-2])], str(prompt[-2]["content"])), form) for prompt in prompts
        ]

    return ScriptedPolicy(answer, tokenizer)


def criticised(
    critic: Critic, prompts: Sequence[Messages], generate: Callable[..., Any], most: int | None
) -> list[Any]:
    """Greedy answers of the critic; ``generate(policy, prompts, ...)`` asks it."""
    more = {} if most is None else {"max_new_tokens": most}
    return list(generate(critic.policy, prompts, temperature=0.0, samples=1, **more))


def read(critic: Critic, text: str, form: Form) -> Critique | None:
    """What a critique says, None where it can't be read, or is that of a silent critic."""
    return None if critic.silent else parse(text, form)


def _written(critique: Critique, form: Form) -> str:
    try:
        return render(critique, form)
    except CritiqueError:  # e.g. a step of the response that holds the form's own marks
        return ""


def _key(messages: Sequence[Any]) -> str:
    return json.dumps(list(messages), sort_keys=True)


def _form(config: CritiqueLoopConfig) -> Form:
    return "compact" if config.form == "compact" else "paper"
